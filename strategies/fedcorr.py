"""FedCorr (Xu, Chen, Quek, Chong, CVPR 2022), the server's part: its schedule, and who is noisy by how much.

The schedule has three stages; rounds are counted from 1.

1. In every iteration each client trains once, few at a time in random order. A client whose trained model answers in
   unusually many dimensions is suspected; suspects estimate their noise level and correct some labels.
2. Clients with a low noise level go on alone; then the others take the global model's confident predictions for labels.
3. All clients train.

Scores and noise levels come from clients and may be anything, so each is checked before it is believed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from logging import INFO, WARNING
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.base import STRATEGIES
from strategies.query import model_record, query, with_count
from strategies.robust import RobustStrategy
from strategies.validation import RoundReport
from tasks.gaussian_mixture import upper_group
from tasks.issues import Issue, RunContext
from tasks.protocol import NOISE_LEVEL, QUESTION, RELABEL, RELABEL_CONFIDENT, SCORE, WANT_SCORE
from tasks.seeds import rng

LARGEST_SCORE = 1e4
"""Largest score that is believed; 0 means that a client has too few examples for one."""


@dataclass(frozen=True)
class Schedule:
    """Which round is of which stage: ``iterations`` passes over ``clients``, ``at_once`` a round, then fine-tuning."""

    iterations: int
    clients: int
    at_once: int
    finetune_rounds: int

    @property
    def steps(self) -> int:
        """Rounds of one iteration."""
        return -(-self.clients // self.at_once)

    @property
    def first_stage(self) -> int:
        """Rounds of the first stage."""
        return self.iterations * self.steps

    def stage(self, server_round: int) -> int:
        """Return the stage of a round, 1 to 3."""
        ends = (self.first_stage, self.first_stage + self.finetune_rounds)
        return 1 + sum(server_round > end for end in ends)

    def ends_iteration(self, server_round: int) -> bool:
        """Tell whether an iteration is complete after this round."""
        return 0 < server_round <= self.first_stage and server_round % self.steps == 0

    def ends_finetuning(self, server_round: int) -> bool:
        """Tell whether the second stage is complete after this round."""
        return self.finetune_rounds > 0 and server_round == self.first_stage + self.finetune_rounds

    def visited(self, server_round: int, members: Sequence[int], present: Collection[int], seed: int) -> list[int]:
        """Return who trains in a round of stage 1, in ascending order: in each iteration another order of ``members``.

        For a client that is not ``present`` the next one stands in.
        """
        iteration, step = divmod(server_round - 1, self.steps)
        start = step * self.at_once
        order = np.roll(rng(seed, "fedcorr", iteration).permutation(members), -start).tolist()
        size = min(self.at_once, len(order) - start)
        return sorted([client for client in order if client in present][:size])


def believable_score(metrics: Mapping[str, float]) -> float | None:
    """Return the mean dimensionality in a client's measures; None if there is none or it cannot be one."""
    score = metrics.get(SCORE, 0.0)
    return score if 0 < score <= LARGEST_SCORE else None


def read_level(answer: Mapping[str, object], examples: int) -> float:
    """Return a client's noise level.

    Raises
    ------
    ValueError
        If it is no number from 0 to 1.
    """
    level = answer.get(NOISE_LEVEL)
    if not isinstance(level, int | float) or isinstance(level, bool) or not 0 <= level <= 1:
        raise ValueError(f"{NOISE_LEVEL} must be a number from 0 to 1, got {level!r}")
    return float(level)


def nothing(answer: Mapping[str, object], examples: int) -> float:
    """Accept an answer that says nothing but that it was done."""
    return 0.0


@dataclass
class ClientEstimate:
    """What is known of a client: the sum and number of its scores, and its estimated noise level, 0 to 1."""

    score_sum: float = 0.0
    scores: int = 0
    noise_level: float = 0.0


@STRATEGIES.register("fedcorr", "Xu et al., CVPR 2022", "https://arxiv.org/abs/2204.04677")
class FedCorr(RobustStrategy):
    """Finds noisy clients by the dimensionality of their answers and lets them correct their labels, in three stages.

    Meant for the client method fedcorr. All other arguments are those of :class:`RobustStrategy`; ``fraction_train``
    holds in stages 2 and 3, and ``min_replies`` where that many clients are asked. In every message ``config`` holds
    the client's ``role`` (unknown in the first iteration, then noisy above ``clean_threshold``, else clean); in
    stage 1 also its ``noise-level``, the weight of the proximal term.

    As published there are always two groups of scores, so some clean clients are suspected too; their noise level is
    what clears them. And scores are trusted: a client with a huge one is a group of its own, and nobody else is found.

    Example: ``winnow run fedcorr-digits``

    Parameters
    ----------
    iterations
        Passes over all clients in stage 1; each takes number of clients / ``clients_per_step`` rounds.
    clients_per_step
        Clients that train in a round of stage 1; 1, as published, hands the model from client to client.
    finetune_rounds
        Rounds of stage 2; with 0 stage 3 follows at once, and nobody relabels in between.
    clean_threshold
        Largest noise level of a clean client.
    timeout
        Seconds to wait for answers; None waits for all.

    Raises
    ------
    ValueError
        If a number is out of range, or the aggregator needs more clients than there are in a step.
    """

    one_label_each: ClassVar[bool] = True
    gives_roles: ClassVar[bool] = True
    asks_method: ClassVar[bool] = True
    learns: ClassVar[str] = "scores and noise levels"

    def __init__(
        self,
        *args: Any,
        iterations: int = 5,
        clients_per_step: int = 1,
        finetune_rounds: int = 500,
        clean_threshold: float = 0.1,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        limits = {"iterations": 1, "clients_per_step": 1, "finetune_rounds": 0}
        given = {"iterations": iterations, "clients_per_step": clients_per_step, "finetune_rounds": finetune_rounds}
        for name, least in limits.items():
            if given[name] < least:
                raise ValueError(f"{name} = {given[name]}: must be at least {least}")
        if not 0 <= clean_threshold < 1:
            raise ValueError(f"clean_threshold = {clean_threshold}: must be at least 0 and below 1")
        if problem := self.aggregator.problem(clients_per_step, "a step of stage 1 has {}"):
            raise ValueError(f"clients_per_step = {clients_per_step}: {problem}")
        self.iterations, self.clients_per_step, self.finetune_rounds = iterations, clients_per_step, finetune_rounds
        self.clean_threshold = clean_threshold
        self._usual_replies = self.min_replies
        self._known_examples: Mapping[int, int] = options.get("examples") or {}
        self._query = partial(query, kind="query.method", timeout=timeout)
        self.estimates: dict[int, ClientEstimate] = {}  # of the clients of the first round, in ascending order

    def schedule(self, clients: int) -> Schedule:
        """Return which round belongs to what in a federation of so many clients."""
        return Schedule(self.iterations, clients, self.clients_per_step, self.finetune_rounds)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients of this round; before it let them relabel if a stage or an iteration has ended."""
        if not self.estimates:
            self.estimates = {client: ClientEstimate() for client in sorted(grid.get_node_ids())}
        schedule = self.schedule(len(self.estimates))
        if schedule.ends_iteration(server_round - 1):
            self._judge(arrays, config, grid)
        if schedule.ends_finetuning(server_round - 1):
            self._relabel(self._noisy(), RELABEL_CONFIDENT, arrays, config, grid)
        noisy = self._noisy()
        judged = self.estimates if server_round > schedule.steps else ()
        self.roles = {client: "noisy" if client in noisy else "clean" for client in judged}
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.min_replies = min(self._usual_replies, len(messages))
        for message in messages:
            own = self._client_config(message.metadata.dst_node_id, schedule.stage(server_round))
            message.content = RecordDict({"arrays": arrays, "config": ConfigRecord({**config, **own})})
        return messages

    def finish_round(self, report: RoundReport) -> None:
        """Keep the scores of the usable replies; the report also says how the clients were judged."""
        for client, metrics in report.metrics.items():
            if client in self.estimates and (score := believable_score(metrics)) is not None:
                self.estimates[client].score_sum += score
                self.estimates[client].scores += 1
        named = report.examples.keys() | report.quarantined.keys()
        report.roles = {client: self.roles.get(client, "unknown") for client in sorted(named)}
        report.noise_levels = {client: self._level(client) for client in self.roles}

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the method does not answer, and which stage the run does not reach."""
        settings, unanswered = context.settings, []
        if not context.method.answers_questions:
            text = f"strategy fedcorr asks what the method {settings.method.name} does not answer"
            unanswered.append(Issue("error", "method", text, "set method.name = 'fedcorr'"))
        unreached = self._unreached(settings.num_server_rounds, settings.federation.num_clients)
        return unanswered + unreached + super().issues(context)

    def _unreached(self, num_rounds: int, num_clients: int) -> list[Issue]:
        schedule = self.schedule(num_clients)
        second, third = schedule.first_stage + 1, schedule.first_stage + schedule.finetune_rounds + 1
        if num_rounds >= third:
            return []
        missed = "3" if num_rounds >= second else "2"
        text = (
            f"strategy.args: stage {missed} of FedCorr would begin with round {third if missed == '3' else second}, "
            f"but the run has {num_rounds} rounds; a pass over {num_clients} clients takes {schedule.steps}"
        )
        return [Issue("warning", "strategy.args", text)]

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state and the estimates."""
        estimates = {client: astuple(known) for client, known in self.estimates.items()}
        return {**super().state_dict(), "estimates": estimates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.estimates = {client: ClientEstimate(*known) for client, known in state["estimates"].items()}

    def _sample(self, stream: str, server_round: int, grid: Grid, fraction: float) -> list[int]:
        """Return the clients of a round; those that evaluate are drawn as usual."""
        schedule, present = self.schedule(len(self.estimates)), set(grid.get_node_ids())
        stage = schedule.stage(server_round)
        clean = sorted(present - self._noisy())
        if stream != "sample" or stage == 3 or (stage == 2 and not clean):
            return super()._sample(stream, server_round, grid, fraction)
        if stage == 2:
            size = max(1, min(round(fraction * len(present)), len(clean)))
            return sorted(rng(self.seed, stream, server_round).choice(clean, size, replace=False).tolist())
        return schedule.visited(server_round, [*self.estimates], present, self.seed)

    def _client_config(self, client: int, stage: int) -> dict[str, str | float | bool]:
        """Return what a client learns beside the model; one that came later is not judged and has level 0."""
        role = {"role": self.roles.get(client, "unknown")}
        return {**role, WANT_SCORE: True, NOISE_LEVEL: self._level(client)} if stage == 1 else {**role}

    def _level(self, client: int) -> float:
        return self.estimates[client].noise_level if client in self.estimates else 0.0

    def _noisy(self) -> set[int]:
        """Return the clients that are noisy."""
        return {client for client, known in self.estimates.items() if known.noise_level > self.clean_threshold}

    def _judge(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> None:
        """Suspect the clients of high mean score, and learn their noise levels; all others have level 0.

        A suspect without a usable answer keeps the level that it has.
        """
        means = {client: known.score_sum / known.scores for client, known in self.estimates.items() if known.scores}
        high = upper_group(np.array([*means.values()], np.float64), self.seed)
        suspects = {client for client, suspected in zip(means, high, strict=True) if suspected}
        levels = self._relabel(suspects, RELABEL, arrays, config, grid)
        for client, known in self.estimates.items():
            known.noise_level = levels.get(client, known.noise_level if client in suspects else 0.0)
        found = ", ".join(f"{c} ({level:.2f})" for c, level in levels.items())
        log(INFO, "FedCorr: noise levels among %d clients: %s", len(self.estimates), found or "none above 0")
        if len(self._noisy()) == len(self.estimates):
            log(WARNING, "FedCorr: every client has a noise level above %g", self.clean_threshold)

    def _relabel(
        self, clients: set[int], question: str, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> dict[int, float]:
        """Ask clients to correct their labels; return the noise levels of those that did."""
        asked = clients & set(grid.get_node_ids())
        content = RecordDict({"arrays": model_record(arrays), "config": ConfigRecord({**config, QUESTION: question})})
        read = with_count(read_level if question == RELABEL else nothing, self._known_examples)
        answers = self._query(grid, asked, content=content, read=read)
        for client, problem in sorted(answers.problems.items()):
            log(WARNING, "Client %d did not relabel: %s", client, problem)
        return answers.found
