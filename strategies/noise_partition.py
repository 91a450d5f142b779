"""Warm-up, questions about losses, and from then on every client knows whether it is called clean or noisy.

The scheme of FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023), FedELC (Jiang et al., CIKM 2024) and MaskedOptim (2025):
after the warm-up every client says how large the global model's mean loss is on each class of its examples, a detector
finds those with many wrong labels, and from then on messages carry their role.

A model knows by heart some of what it was trained on. Where only some clients train in a round, those that did so more
often or later have lower losses, which looks like cleaner labels. So here clients train in turn, and all are asked in
each of the last rounds in which everybody has a turn: the mean of a client's answers has seen it at every distance from
its training once, as it has all others. With all clients in every round that is one question after the warm-up.

Losses under different models cannot be compared. So whenever a client without a judgement turns up, all are asked again
about the same models; a client that twice gave too few usable answers is not waited for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.aggregators import Rule
from strategies.detection import DETECTORS, answers_since, detect, mean_profiles, no_answers, read_profile, with_answers
from strategies.detection.base import FEWEST_CLIENTS, Counts, Doubles, Flags
from strategies.inquiry import Inquiry
from strategies.turns import TurnStrategy
from tasks.issues import Issue, RunContext
from tasks.questions import LEARNED, SINCE_DETECTION
from tasks.wire import Arrays

ATTEMPTS = 2


class NoisePartition(TurnStrategy):
    """Tells clean from noisy clients by their loss profiles after a warm-up, over any aggregation rule.

    All other arguments are those of :class:`TurnStrategy`; ``in_turn = False`` draws clients at random and asks once,
    as published, which takes recency for clean labels where few train in a round. In every message ``config`` holds the
    client's ``role`` (unknown, clean or noisy), ``rounds-since-detection`` and ``learned-labels``; see
    :mod:`tasks.questions`.

    Parameters
    ----------
    warmup_rounds
        Rounds before the clients are judged; as many as the run has, or more, means never.
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

    one_label_each: ClassVar[bool] = True
    gives_roles: ClassVar[bool] = True
    learns: ClassVar[str] = "loss profiles"

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
        # Kept as arrays, which a checkpoint holds: who was judged and how, from which answers, and who gave too few.
        self.judged: Counts = np.zeros(0, np.int64)
        self.posterior: Doubles = np.zeros(0)
        self.noisy: Flags = np.zeros(0, bool)
        self.profiles: Arrays = no_answers()
        self.failures: Counts = np.zeros(0, np.int64)
        self.learned: Counts = np.zeros(0, np.int64)  # who has trained as noisy, so that it has corrected labels
        self.extra = 0  # before this round all are judged again for the sake of a client that turned up late

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose the clients of this round and tell each its role; ask for profiles first if they are due."""
        self._ask_if_due(server_round, arrays, config, grid)
        pairs = zip(self.judged.tolist(), self.noisy.tolist(), strict=True)
        self.roles = {client: "noisy" if noisy else "clean" for client, noisy in pairs}
        since = max(server_round - self.warmup_rounds - 1, 0)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            client = message.metadata.dst_node_id
            role, learned = self.roles.get(client, "unknown"), client in self.learned
            told = ConfigRecord({**config, "role": role, SINCE_DETECTION: since, LEARNED: learned})
            message.content = RecordDict({"arrays": arrays, "config": told})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the usable replies; the report also says how the clients were judged."""
        result = super().aggregate_train(server_round, replies)
        noisy = [client for client in self.report.examples if self.roles.get(client) == "noisy"]
        self.learned = np.union1d(self.learned, np.array(noisy, np.int64))
        named = self.report.examples.keys() | self.report.quarantined.keys()
        self.report.roles = {client: self.roles.get(client, "unknown") for client in sorted(named)}
        self.report.posteriors = dict(zip(self.judged.tolist(), self.posterior.tolist(), strict=True))
        return result

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also why nobody is called noisy, or not fairly, and that nobody treats noisy clients otherwise."""
        settings, found = context.settings, []
        if text := self._unjudged(settings.num_server_rounds, settings.federation.num_clients):
            found.append(Issue("warning", "strategy.args", text))
        if context.judges_roles and not (context.method.reads_role or context.rule.reads_role):
            text = (
                f"strategy noise-partition: neither the method {settings.method.name} nor the rule "
                f"{settings.strategy.aggregator} treats noisy clients in another way"
            )
            remedy = "to correct labels set method.name = 'masked-optim', 'fedelc' or 'fednoro'"
            found.append(Issue("warning", "method", text, remedy))
        return super().issues(context) + found

    def _unjudged(self, num_rounds: int, num_clients: int) -> str:
        if self.warmup_rounds >= num_rounds:
            return (
                f"strategy.args: warmup_rounds = {self.warmup_rounds}, but the run has {num_rounds} rounds: "
                "it ends before clean and noisy clients are told apart"
            )
        if num_clients < FEWEST_CLIENTS:
            return f"federation.num-clients = {num_clients}: with fewer than {FEWEST_CLIENTS} all count as clean"
        turns = self.rounds_for_all(num_clients)
        if turns > 1 and self.warmup_rounds < 2 * turns - 1:
            return (
                f"strategy.args: warmup_rounds = {self.warmup_rounds}, but {num_clients} clients train in turn within "
                f"{turns} rounds: they can be compared fairly after {2 * turns - 1}"
            )
        return ""

    def _ask_if_due(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> None:
        clients = set(grid.get_node_ids())
        before = self.rounds_for_all(len(clients)) - 1  # questions before the last one
        planned = self._planned(server_round)
        if self.warmup_rounds < server_round != planned and server_round > self.extra and self._waits(clients):
            self.extra = server_round + 2 * before  # by then whoever is new has trained as often as the others
        due = [last for last in (planned, self.extra) if 0 <= last - server_round <= before]
        if due:
            self.profiles = answers_since(self.profiles, server_round - before)
            found = self._ask(clients, arrays, config, grid)
            self.profiles = with_answers(self.profiles, server_round, found)
        if server_round in due:
            if server_round == planned:
                self.failures = np.zeros(0, np.int64)
            self._judge(clients)

    def _planned(self, server_round: int) -> int:
        """Return before which round all are judged next, this one included; 0 if never."""
        first, every = self.warmup_rounds + 1, self.reprofile_every
        if server_round <= first:
            return first
        return server_round + (first - server_round) % every if every else 0

    def _waits(self, clients: set[int]) -> bool:
        """Tell whether one of the clients has no judgement and may still be asked for it."""
        failed = Counter(self.failures.tolist())
        return any(failed[client] < ATTEMPTS for client in clients - set(self.judged.tolist()))

    def _ask(
        self, clients: set[int], arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> dict[int, tuple[Doubles, Counts]]:
        """Return the usable profiles by client; why the others are not is logged."""
        answers = self._inquiry.ask(grid, clients, arrays, config, read_profile)
        sizes = Counter(len(losses) for losses, _ in answers.found.values())
        sizes.update([self.profiles["losses"].shape[1]] * len(self.profiles["losses"]))
        usual = sizes.most_common(1)[0][0] if sizes else 0
        for client, (losses, _) in answers.found.items():
            if len(losses) != usual:
                answers.problems[client] = f"{len(losses)} classes, but most clients have {usual}"
        for client, problem in sorted(answers.problems.items()):
            log(WARNING, "No loss profile of client %d: %s", client, problem)
        return {client: profile for client, profile in answers.found.items() if client not in answers.problems}

    def _judge(self, present: set[int]) -> None:
        """Decide anew who is noisy; a client without a new profile keeps the judgement that it has."""
        clients, losses, counts = mean_profiles(self.profiles)
        self.failures = np.append(self.failures, np.array(sorted(present - set(clients.tolist())), np.int64))
        if not len(clients):
            log(WARNING, "No usable loss profile: all roles stay as they are")
            return
        result = detect(self._detector, losses, counts)
        kept = ~np.isin(self.judged, clients)
        order = np.argsort(np.append(clients, self.judged[kept]))
        self.judged = np.append(clients, self.judged[kept])[order]
        self.posterior = np.append(result.posterior, self.posterior[kept])[order]
        self.noisy = np.append(result.noisy, self.noisy[kept])[order]
        noisy = ", ".join(map(str, self.judged[self.noisy])) or "none"
        log(INFO, "Noisy among %d clients: %s (%s)", len(self.judged), noisy, result.reason)
