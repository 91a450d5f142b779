"""Warm-up, one question about losses, and from then on every client knows whether it is called clean or noisy.

The scheme of FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023), FedELC (Jiang et al., CIKM 2024) and MaskedOptim (2025):
after the warm-up every client says how large the global model's mean loss is on each class of its examples, a detector
finds those with many wrong labels, and from then on messages carry their role.

Losses under different models cannot be compared. So whenever a client without a judgement turns up, all are asked again
under the present model; a client that gave no usable answer twice is not waited for.

Limit: a model knows by heart some of what it was trained on. Where only some clients train in a round, those that did
so more often or later have lower losses, which looks like cleaner labels. Let all train in the warm-up if possible.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.aggregators import Rule
from strategies.detection import DETECTORS, detect, read_profile
from strategies.detection.base import FEWEST_CLIENTS, Counts, Doubles, Flags
from strategies.inquiry import Inquiry
from strategies.robust import RobustStrategy
from tasks.wire import Arrays

SINCE_DETECTION = "rounds-since-detection"
ATTEMPTS = 2


class NoisePartition(RobustStrategy):
    """Tells clean from noisy clients by their loss profiles after a warm-up, over any aggregation rule.

    All other arguments are those of :class:`RobustStrategy`. In every message ``config`` holds the client's ``role``
    (unknown, clean or noisy) and ``rounds-since-detection``, 0 up to the first round after the warm-up.

    Parameters
    ----------
    warmup_rounds
        Rounds before the clients are asked; as many as the run has, or more, means never.
    reprofile_every
        Ask again after so many rounds, and decide anew; 0 = decide once.
    detector, detector_args
        Who is noisy: ``robust``, ``official`` or ``package.module:Name``, and its arguments as inline TOML.
    examples
        Example count of each client, if known: what its class counts must add up to.
    timeout
        Seconds to wait for profiles; None waits for all.

    Raises
    ------
    ValueError
        If a number of rounds is negative, or the detector is unknown.
    """

    def __init__(
        self,
        aggregator: Rule,
        *,
        warmup_rounds: int = 30,
        reprofile_every: int = 0,
        detector: str = "robust",
        detector_args: str = "",
        examples: Mapping[int, int] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(aggregator, examples=examples, **options)
        if warmup_rounds < 0 or reprofile_every < 0:
            raise ValueError(
                f"warmup_rounds = {warmup_rounds}, reprofile_every = {reprofile_every}: must be at least 0"
            )
        self.warmup_rounds = warmup_rounds
        self.reprofile_every = reprofile_every
        self._detector = DETECTORS.build(detector, detector_args)
        self._inquiry = Inquiry("query.profile", examples or {}, timeout)
        # Kept as arrays, which a checkpoint holds: who was judged and how, from what, and who gave no usable answer.
        self.judged: Counts = np.zeros(0, np.int64)
        self.posterior: Doubles = np.zeros(0)
        self.noisy: Flags = np.zeros(0, bool)
        self.profiles: Arrays = {}
        self.failures: Counts = np.zeros(0, np.int64)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients of this round and tell each its role; ask for profiles first if they are due."""
        if self._due(server_round, grid):
            self._judge(self._ask(arrays, config, grid))
        pairs = zip(self.judged.tolist(), self.noisy.tolist(), strict=True)
        self.roles = {client: "noisy" if noisy else "clean" for client, noisy in pairs}
        since = max(server_round - self.warmup_rounds - 1, 0)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            role = self.roles.get(message.metadata.dst_node_id, "unknown")
            told = ConfigRecord({**config, "role": role, SINCE_DETECTION: since})
            message.content = RecordDict({"arrays": arrays, "config": told})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the usable replies; the report also says how the clients were judged."""
        result = super().aggregate_train(server_round, replies)
        named = self.report.examples.keys() | self.report.quarantined.keys()
        self.report.roles = {client: self.roles.get(client, "unknown") for client in sorted(named)}
        self.report.posteriors = dict(zip(self.judged.tolist(), self.posterior.tolist(), strict=True))
        return result

    def remarks(self, num_rounds: int, num_clients: int) -> list[str]:
        """Return why nobody will ever be called noisy in such a run, if so."""
        if self.warmup_rounds >= num_rounds:
            return [
                f"strategy.args: warmup_rounds = {self.warmup_rounds}, but the run has {num_rounds} rounds: "
                "it ends before clean and noisy clients are told apart"
            ]
        if num_clients < FEWEST_CLIENTS:
            return [f"federation.num-clients = {num_clients}: with fewer than {FEWEST_CLIENTS} all count as clean"]
        return []

    def _due(self, server_round: int, grid: Grid) -> bool:
        """Tell whether profiles are asked for before this round."""
        since = server_round - self.warmup_rounds - 1
        if since < 0:
            return False
        if since == 0 or (self.reprofile_every and since % self.reprofile_every == 0):
            self.failures = np.zeros(0, np.int64)
            return True
        failed = Counter(self.failures.tolist())
        new = set(grid.get_node_ids()) - set(self.judged.tolist())
        return any(failed[client] < ATTEMPTS for client in new)

    def _ask(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> dict[int, tuple[Doubles, Counts]]:
        """Return the usable profiles by client; why the others are not is logged."""
        answers = self._inquiry.ask(grid, grid.get_node_ids(), arrays, config, read_profile)
        sizes = Counter(len(losses) for losses, _ in answers.found.values())
        usual = sizes.most_common(1)[0][0] if sizes else 0
        for client, (losses, _) in answers.found.items():
            if len(losses) != usual:
                answers.problems[client] = f"{len(losses)} classes, but most clients have {usual}"
        for client, problem in sorted(answers.problems.items()):
            log(WARNING, "No loss profile of client %d: %s", client, problem)
        self.failures = np.append(self.failures, np.array(sorted(answers.problems), np.int64))
        return {client: profile for client, profile in answers.found.items() if client not in answers.problems}

    def _judge(self, found: dict[int, tuple[Doubles, Counts]]) -> None:
        """Decide anew who is noisy; a client without a new profile keeps the judgement that it has."""
        if not found:
            log(WARNING, "No usable loss profile: all roles stay as they are")
            return
        clients = np.array(list(found), np.int64)
        losses, counts = (np.stack(tables) for tables in zip(*found.values(), strict=True))
        result = detect(self._detector, losses, counts)
        self.profiles = {"clients": clients, "losses": losses, "counts": counts}
        kept = ~np.isin(self.judged, clients)
        order = np.argsort(np.append(clients, self.judged[kept]))
        self.judged = np.append(clients, self.judged[kept])[order]
        self.posterior = np.append(result.posterior, self.posterior[kept])[order]
        self.noisy = np.append(result.noisy, self.noisy[kept])[order]
        noisy = ", ".join(map(str, self.judged[self.noisy])) or "none"
        log(INFO, "Noisy among %d clients: %s (%s)", len(self.judged), noisy, result.reason)
