"""Noise partition: after a warm-up clients are told apart by their losses, and each knows if it is called noisy.

The scheme of FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023), FedELC (Jiang et al., CIKM 2024) and MaskedOptim (2025):
after the warm-up every client says how large the global model's mean loss is on each class of its examples, a detector
finds those with many wrong labels, and from then on messages carry their role.

Round-robin sampling: a network remembers what it was trained on last and most. Drawn at random, some clients have
trained twice as often as others, or not for a long time, and their losses are lower or higher for that alone, which
looks like cleaner or worse labels. In round-robin order every client trains once in so many rounds, and all are asked
in each of the last rounds in which everybody has a turn: the mean of a client's answers has seen it once at every
distance from its training. With all clients in every round that is one question after the warm-up.

Losses under different models cannot be compared. So whenever a client without a judgement turns up, all are asked again
about the same models; a client that twice gave too few usable answers is not waited for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from logging import INFO, WARNING
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.aggregators import Aggregator
from strategies.base import STRATEGIES
from strategies.detection import (
    DETECTORS,
    Profile,
    ProfileAnswer,
    RateDetector,
    answers_of,
    detect,
    from_table,
    latest,
    mean_profiles,
    mean_rates,
    read_report,
    to_table,
    without_trend,
)
from strategies.detection.base import FEWEST_CLIENTS
from strategies.query import model_record, query, with_count
from strategies.robust import KeptArrays, RobustStrategy
from strategies.validation import RoundReport, Update
from tasks.issues import Issue, RunContext
from tasks.protocol import LEARNED, SINCE_DETECTION, WANT_NOISE_RATE, WANT_PROFILE, WANT_SHARES, Arrays
from tasks.records import records_of
from tasks.seeds import rng

ATTEMPTS = 2
"""How often a client may give too few usable answers before the others no longer wait for it."""


class RoundRobinStrategy(RobustStrategy):
    """Takes the clients of a round from the front of a queue instead of drawing them.

    All other arguments are those of :class:`RobustStrategy`.

    Parameters
    ----------
    round_robin_sampling
        False draws the clients at random. With all clients in every round there is no difference.
    """

    def __init__(self, aggregator: Aggregator, *, round_robin_sampling: bool = True, **options: Any) -> None:
        super().__init__(aggregator, **options)
        self.round_robin_sampling = round_robin_sampling
        self.queue: list[int] = []

    def rounds_for_all(self, clients: int) -> int:
        """Return in how many rounds everybody has a turn; 1 where clients are drawn at random."""
        return -(-clients // self._size(clients)) if self.round_robin_sampling else 1

    def _sample(self, stream: str, server_round: int, grid: Grid, fraction: float) -> list[int]:
        """Return the clients of a round; those that evaluate are drawn as usual."""
        if stream != "sample" or not self.round_robin_sampling:
            return super()._sample(stream, server_round, grid, fraction)
        clients = set(grid.get_node_ids())
        drawn, self.queue = round_robin(self.queue, clients, self._size(len(clients)), self.seed)
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state and the queue."""
        return {**super().state_dict(), "queue": self.queue}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.queue = state["queue"]

    def _size(self, clients: int) -> int:
        return max(1, round(self.fraction_train * clients))


def round_robin(queue: Sequence[int], present: Iterable[int], size: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the ``size`` clients whose turn it is, in ascending order, and the queue for the next call.

    Who is not in ``queue`` yet comes first, in an order that follows from the seed; who is not present loses its place.
    """
    here = set(present)
    waiting = [client for client in queue if client in here]
    order = [*rng(seed, "turns").permutation(sorted(here - set(waiting))).tolist(), *waiting]
    return sorted(order[:size]), order[size:] + order[:size]


@dataclass(frozen=True)
class Judgement:
    """How a client was judged: the posterior probability that it is noisy, and whether it counts as noisy."""

    posterior: float
    noisy: bool


@STRATEGIES.register("noise-partition", "Wu et al. (FedNoRo), IJCAI 2023", "https://arxiv.org/abs/2305.05230")
class NoisePartition(RoundRobinStrategy):
    """Tells clean from noisy clients by their loss profiles after a warm-up, over any aggregator.

    All other arguments are those of :class:`RoundRobinStrategy`; ``round_robin_sampling = False`` draws clients at
    random and asks once, as published, which takes recency for clean labels where few train in a round. In every
    message ``config`` holds the client's ``role`` (unknown, clean or noisy), ``rounds-since-detection`` and
    ``learned-labels``; see :mod:`tasks.protocol`.

    Parameters
    ----------
    warmup_rounds
        Rounds before the clients are judged; as many as the run has, or more, means never.
    reprofile_every
        Ask again after so many rounds, and decide anew; 0 = decide once.
    detector, detector_args
        Who is noisy: ``robust``, ``official`` or ``package.module:Name``, and its arguments as inline TOML.
    profile_while_training
        Nobody is asked: every client reports its losses under the model that it receives when it trains, and the
        reports of one turn are compared without their common trend (:mod:`strategies.detection.reports`). One pass
        over its data a training in place of a question to all in each round of a turn; who joins late is judged after
        its first training.
    estimate_shares
        Clients weigh predictions by the class shares that they estimate for themselves before they take losses. Helps
        where the model is weak and labels are wrong by pairs, at clients that differ in their classes.
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
        aggregator: Aggregator,
        *,
        warmup_rounds: int = 30,
        reprofile_every: int = 0,
        detector: str = "robust",
        detector_args: str = "",
        profile_while_training: bool = False,
        estimate_shares: bool = False,
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
        self.profile_while_training = profile_while_training
        asks_rates = {WANT_NOISE_RATE: True} if isinstance(self._detector, RateDetector) else {}
        self._wanted = asks_rates | ({WANT_SHARES: True} if estimate_shares else {})
        self._read = partial(read_report, with_rate=bool(asks_rates))
        self._query = partial(query, kind="query.profile", read=with_count(self._read, examples or {}), timeout=timeout)
        self._round = 0
        self.judgements: dict[int, Judgement] = {}  # by client, in ascending order
        self.profiles: list[ProfileAnswer] = []
        self.failures: Counter[int] = Counter()  # how often a client gave too few usable answers
        self.learned: set[int] = set()  # who has trained as noisy, so that it has corrected labels
        self.extra = 0  # before this round all are judged again for the sake of a client that turned up late

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose the clients of this round and tell each its role; ask for profiles first if they are due."""
        self._round = server_round
        if self.profile_while_training:
            self._judge_reports_if_due(server_round, set(grid.get_node_ids()))
        else:
            self._ask_if_due(server_round, arrays, config, grid)
        self.roles = {client: "noisy" if found.noisy else "clean" for client, found in self.judgements.items()}
        since = max(server_round - self.warmup_rounds - 1, 0)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            client = message.metadata.dst_node_id
            role, learned = self.roles.get(client, "unknown"), client in self.learned
            wanted = {WANT_PROFILE: True, **self._wanted} if self.profile_while_training else {}
            own = ConfigRecord({**config, **wanted, "role": role, SINCE_DETECTION: since, LEARNED: learned})
            message.content = RecordDict({"arrays": arrays, "config": own})
        return messages

    def keep(self, update: Update[Arrays]) -> KeptArrays:
        """Keep the update, and the loss profile that came with it; without a usable one it counts all the same."""
        if self.profile_while_training:
            self._note_report(update)
        return super().keep(update)

    def finish_round(self, report: RoundReport) -> None:
        """Remember who has trained as noisy; the report also says how the clients were judged."""
        self.learned.update(client for client in report.examples if self.roles.get(client) == "noisy")
        named = report.examples.keys() | report.quarantined.keys()
        report.roles = {client: self.roles.get(client, "unknown") for client in sorted(named)}
        report.posteriors = {client: found.posterior for client, found in self.judgements.items()}

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also why nobody is called noisy, or not fairly, and that nobody treats noisy clients otherwise."""
        settings, found = context.settings, []
        if text := self._unjudged(settings.num_server_rounds, settings.federation.num_clients):
            found.append(Issue("warning", "strategy.args", text))
        if context.judges_roles and not (context.method.reads_role or context.aggregator.reads_role):
            text = (
                f"strategy noise-partition: neither the method {settings.method.name} nor the aggregator "
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
        if num_clients < FEWEST_CLIENTS and not isinstance(self._detector, RateDetector):
            return f"federation.num-clients = {num_clients}: with fewer than {FEWEST_CLIENTS} all count as clean"
        rounds = self.rounds_for_all(num_clients)
        if rounds > 1 and self.warmup_rounds < 2 * rounds - 1:
            return (
                f"strategy.args: warmup_rounds = {self.warmup_rounds}, but {num_clients} clients train in turn within "
                f"{rounds} rounds: they can be compared fairly after {2 * rounds - 1}"
            )
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state, the judgements and what the next ones rest on."""
        return {
            **super().state_dict(),
            "judgements": {client: astuple(found) for client, found in self.judgements.items()},
            "profiles": to_table(self.profiles),
            "failures": dict(self.failures),
            "learned": self.learned,
            "extra": self.extra,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.judgements = {client: Judgement(*found) for client, found in state["judgements"].items()}
        self.profiles, self.failures = from_table(state["profiles"]), Counter(state["failures"])
        self.learned, self.extra = state["learned"], state["extra"]

    def _note_report(self, update: Update[Arrays]) -> None:
        """Keep the profile in a reply; of one that is not usable say why."""
        values = next(iter(records_of(update.message.content, MetricRecord).values()))
        try:
            profile = self._read(values, update.examples)
        except ValueError as problem:
            log(WARNING, "No loss profile of client %d: %s", update.client, problem)
            return
        self.profiles += answers_of(self._round, {update.client: profile})

    def _judge_reports_if_due(self, server_round: int, clients: set[int]) -> None:
        """Judge all by their last reports, when that is planned or one has reported that is not judged yet."""
        turn = -(-len(clients) // self._size(len(clients)))
        self.profiles = latest(self.profiles, server_round - 1 - turn)
        new = {answer.client for answer in self.profiles} & clients - self.judgements.keys()
        planned = self._planned(server_round) == server_round
        if planned or (server_round > self.warmup_rounds + 1 and new):
            self._judge(clients)

    def _ask_if_due(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> None:
        clients = set(grid.get_node_ids())
        before = self.rounds_for_all(len(clients)) - 1  # questions before the last one
        planned = self._planned(server_round)
        if self.warmup_rounds < server_round != planned and server_round > self.extra and self._waits(clients):
            self.extra = server_round + 2 * before  # by then whoever is new has trained as often as the others
        due = [last for last in (planned, self.extra) if 0 <= last - server_round <= before]
        if due:
            self.profiles = [answer for answer in self.profiles if answer.server_round >= server_round - before]
            found = self._ask(clients, arrays, config, grid)
            self.profiles += answers_of(server_round, found)
        if server_round in due:
            if server_round == planned:
                self.failures.clear()
            self._judge(clients)

    def _planned(self, server_round: int) -> int:
        """Return before which round all are judged next, this one included; 0 if never."""
        first, every = self.warmup_rounds + 1, self.reprofile_every
        if server_round <= first:
            return first
        return server_round + (first - server_round) % every if every else 0

    def _waits(self, clients: set[int]) -> bool:
        """Tell whether one of the clients has no judgement and may still be asked for it."""
        return any(self.failures[client] < ATTEMPTS for client in clients - self.judgements.keys())

    def _ask(self, clients: set[int], arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> dict[int, Profile]:
        """Return the usable profiles by client; why the others are not is logged."""
        wanted = ConfigRecord({**config, **self._wanted})
        answers = self._query(grid, clients, content=RecordDict({"arrays": model_record(arrays), "config": wanted}))
        sizes = Counter(len(losses) for losses, *_ in answers.found.values())
        sizes.update(len(answer.losses) for answer in self.profiles)
        usual = sizes.most_common(1)[0][0] if sizes else 0
        self.profiles = [answer for answer in self.profiles if len(answer.losses) == usual]
        for client, (losses, *_) in answers.found.items():
            if len(losses) != usual:
                answers.problems[client] = f"{len(losses)} classes, but most clients have {usual}"
        for client, problem in sorted(answers.problems.items()):
            log(WARNING, "No loss profile of client %d: %s", client, problem)
        return {client: profile for client, profile in answers.found.items() if client not in answers.problems}

    def _judge(self, present: set[int]) -> None:
        """Decide anew who is noisy; a client without a new profile keeps the judgement that it has."""
        comparable = without_trend if self.profile_while_training else mean_profiles
        clients, losses, counts = comparable(self.profiles)
        self.failures.update(present - set(clients.tolist()))
        if not len(clients):
            log(WARNING, "No usable loss profile: all roles stay as they are")
            return
        rates = mean_rates(self.profiles, clients) if WANT_NOISE_RATE in self._wanted else None
        result = detect(self._detector, losses, counts, rates)
        judged = map(Judgement, result.posterior.tolist(), result.noisy.tolist())
        found = {**self.judgements, **dict(zip(clients.tolist(), judged, strict=True))}
        self.judgements = {client: found[client] for client in sorted(found)}
        noisy = ", ".join(str(client) for client, one in self.judgements.items() if one.noisy) or "none"
        log(INFO, "Noisy among %d clients: %s (%s)", len(self.judgements), noisy, result.reason)
