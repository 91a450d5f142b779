"""FedRN (Kim, Shin, Jang, Song, Yun, CIKM 2022), the server's part: every client is sent its most reliable neighbours.

https://arxiv.org/abs/2205.01310. A neighbour is another client, and what is sent is the model that it trained last. So
clients see models of single clients, not only their mean; see docs/privacy.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from strategies.aggregators import Aggregator
from strategies.base import STRATEGIES
from strategies.gram import Doubles
from strategies.parameters import as_sent
from strategies.robust import KeptArrays, RobustStrategy
from strategies.validation import RoundReport, Update
from tasks.extra_arrays import GIVEN, NAMED, is_beside, of_network
from tasks.issues import ERROR, WARNING, Issue, RunContext
from tasks.protocol import EXPERTISE, PROBE_LOGITS, SCORES, Arrays
from tasks.records import view_record, views


@dataclass(frozen=True)
class KnownClient:
    """What a client has sent last: its model, the accuracy on its own labels, and its logits (K,) of the probe."""

    model: Arrays
    expertise: float
    logits: Doubles


@STRATEGIES.register("fedrn", "Kim et al., CIKM 2022", "https://arxiv.org/abs/2205.01310")
class FedRN(RobustStrategy):
    """Sends every client the last models of the other clients that are most like it and know their labels best.

    Meant for the client method fedrn and the aggregator mean. All other arguments are those of :class:`RobustStrategy`.
    After ``warmup_rounds`` rounds a client that has replied before also gets ``neighbours`` models and the scores of
    itself and of these. A score is ``expertise_weight`` x expertise + (1 - ``expertise_weight``) x similarity, both
    scaled to 0..1 over all clients that have replied: expertise is the accuracy of a client's own model on its own
    labels, similarity the cosine of two clients' logits of one random input. Expertise is what a client claims.

    The last model of every client is kept here, and in the checkpoints.

    Example: ``winnow run strategy.name=fedrn method.name=fedrn loss.name=ce strategy.aggregator=mean``

    Parameters
    ----------
    warmup_rounds
        FNBench takes 24 of 120 rounds, the paper 100 of 500.
    neighbours
        The paper takes 2, FNBench 1; 0 leaves a client its own model.
    expertise_weight
        0.5 in the paper, 0.6 in the authors' script.
    """

    one_label_each: ClassVar[bool] = True
    gives_neighbours: ClassVar[bool] = True
    learns: ClassVar[str] = "accuracies on own labels and logits"

    def __init__(
        self,
        aggregator: Aggregator,
        *,
        warmup_rounds: int = 24,
        neighbours: int = 2,
        expertise_weight: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(aggregator, **options)
        if warmup_rounds < 0 or neighbours < 0:
            raise ValueError(f"warmup_rounds = {warmup_rounds}, neighbours = {neighbours}: must be at least 0")
        if not 0 <= expertise_weight <= 1:
            raise ValueError(f"expertise_weight = {expertise_weight}: must be from 0 to 1")
        self.warmup_rounds, self.neighbours, self.expertise_weight = warmup_rounds, neighbours, expertise_weight
        self.known: dict[int, KnownClient] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients of this round, and send those that are known their neighbours."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        if server_round <= self.warmup_rounds:
            return messages
        for message in messages:
            if (client := message.metadata.dst_node_id) in self.known:
                own = view_record({**views(arrays), **self.given_to(client)})
                message.content = RecordDict({"arrays": own, "config": config})
        return messages

    def given_to(self, client: int) -> Arrays:
        """Return what a client is sent beside the model: the models of its neighbours, best first, and all scores."""
        scores = neighbour_scores(client, self.known, self.expertise_weight)
        others = sorted((one for one in scores if one != client), key=lambda one: (-scores[one], one))
        chosen = others[: self.neighbours]
        found: Arrays = {GIVEN + SCORES: np.array([scores[one] for one in [client, *chosen]], np.float64)}
        for number, one in enumerate(chosen, 1):
            found |= {GIVEN + name: array for name, array in of_network(number, self.known[one].model).items()}
        return found

    def aggregate_updates(
        self, server_round: int, updates: list[Update[KeptArrays]], report: RoundReport
    ) -> tuple[Arrays | None, MetricRecord | None]:
        """Combine the updates, and remember the model of each client that describes itself."""
        sent = {name: array for name, array in self._parameters.model.items() if not is_beside(name)}
        described = [
            update for update in updates if {NAMED + EXPERTISE, NAMED + PROBE_LOGITS} <= {*update.kept.buffers}
        ]
        for update in described:
            own = {**self._parameters.after(update.kept.step), **update.kept.buffers}
            expertise = float(np.clip(own[NAMED + EXPERTISE], 0.0, 1.0))
            logits = own[NAMED + PROBE_LOGITS].astype(np.float64)
            self.known[update.client] = KnownClient(as_sent(own, sent), expertise, logits)
        return super().aggregate_updates(server_round, updates, report)

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that clients see models of others, and that the method does not use them."""
        settings, found = context.settings, super().issues(context)
        if not context.method.uses_neighbours:
            text = f"strategy fedrn needs what the method {settings.method.name} does not send"
            return [Issue(ERROR, "method", text, "set method.name = 'fedrn'"), *found]
        if self.warmup_rounds >= settings.num_server_rounds:
            text = (
                f"strategy.args: warmup_rounds = {self.warmup_rounds}, but the run has {settings.num_server_rounds} "
                "rounds: it ends before labels are filtered"
            )
            found.append(Issue(WARNING, "strategy.args", text))
        elif self.neighbours:
            text = f"strategy fedrn sends each client the models that up to {self.neighbours} others have trained"
            found.append(Issue(WARNING, "strategy", text, "with neighbours = 0 none is sent"))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state and what is known of each client."""
        known = {client: (one.model, one.expertise, one.logits) for client, one in self.known.items()}
        return {**super().state_dict(), "known": known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.known = {client: KnownClient(*one) for client, one in state["known"].items()}


def neighbour_scores(client: int, known: Mapping[int, KnownClient], weight: float) -> dict[int, float]:
    """Return how reliable each known client is for one of them, itself too, 0 to 1."""
    clients = sorted(known)
    expertise = scaled(np.array([known[one].expertise for one in clients]))
    similarity = scaled(np.array([cosine(known[client].logits, known[one].logits) for one in clients]))
    values = weight * expertise + (1 - weight) * similarity
    return dict(zip(clients, values.tolist(), strict=True))


def scaled(values: Doubles) -> Doubles:
    """Return values (N,) moved and scaled to 0..1; all 1 if they are equal, so that nobody is left without weight."""
    spread = np.ptp(values)
    return np.asarray((values - values.min()) / spread if spread else np.ones(len(values)))


def cosine(first: Doubles, second: Doubles) -> float:
    """Return the cosine of two vectors (K,); 0 if one of them is 0."""
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms else 0.0
