"""Robust strategy: combines updates with any aggregator, and survives those that are wrong but look sound.

BatchNorm: running means and variances are buffers, not parameters. They do not enter the distances between updates:
a variance can be a thousand times larger than a weight. So the aggregator's weights say nothing about them, and a
robust aggregator comes with the coordinate-wise median of the buffers, the mean with their weighted mean. Integer
buffers are rounded and stay integers.

Example counts are what clients claim. Behind a robust aggregator no client's weight exceeds twice the median one before
the updates are looked at, or a claim of a billion examples would outvote everybody.

Memory: of each reply only its step away from the global model and its buffers are kept, in one copy; where the steps of
a round do not fit into memory, in a file.
"""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from strategies.aggregators import Aggregate, Aggregator, aggregate
from strategies.base import STRATEGIES, UpdateStrategy
from strategies.extra_arrays import ArrayCombiner, limited
from strategies.gram import Doubles, Vector, sum_over_blocks
from strategies.parameters import NetworkPart, Parameters, as_sent
from strategies.server_optimizers import ServerOptimizer
from strategies.spool import FileStore, MemoryStore, Spool
from strategies.validation import RoundReport, Update
from tasks.extra_arrays import ExtraArray, is_named, network_of
from tasks.issues import ERROR, WARNING, Issue, RunContext
from tasks.protocol import Arrays
from tasks.records import views
from tasks.seeds import rng


@dataclass(frozen=True)
class KeptArrays:
    """What is kept of a client's arrays: its parameters as a step (P,) away from the global model, and its buffers.

    With several networks the step is that of all of them; named arrays of a method are among the buffers.
    """

    step: Vector
    buffers: Arrays


@STRATEGIES.register(
    "robust", "Pillutla, Kakade, Harchaoui, IEEE TSP 2022 (with geometric-median)", "https://arxiv.org/abs/1912.13445"
)
class RobustStrategy(UpdateStrategy[KeptArrays]):
    """Samples clients and combines their validated updates with any aggregator.

    Parameters
    ----------
    aggregator
        What combines the updates; it sees them relative to the global model.
    seed
        Client sampling, and what the aggregator draws, follow from it and the round alone.
    fraction_train, fraction_evaluate
        Shares of the clients that train and evaluate; at least one trains.
    min_replies, examples
        See :class:`UpdateStrategy`.
    weighting
        Client weights: ``examples`` (example counts, limited behind a robust aggregator) or ``uniform``.
    buffers
        Names of the arrays that are not parameters (BatchNorm statistics).
    server_optimizer
        Turns the aggregator's result into the step that the global model takes; None takes the result.
    spool
        How much memory the updates of a round may take, and where they lie if they need more; None = half of it.
    extra_arrays
        The named arrays that the client method exchanges; see :mod:`tasks.extra_arrays`.

    Each network of a method that trains several is aggregated for itself, with a server optimizer of its own.

    ``roles`` says which clients are known to be clean or noisy; all others are unknown. ``learns`` names what clients
    tell a strategy beside their updates, in words, if anything.
    """

    learns: ClassVar[str] = ""
    combines_extras: ClassVar[bool] = True

    def __init__(
        self,
        aggregator: Aggregator,
        seed: int = 0,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 0.0,
        min_replies: int = 1,
        weighting: str = "examples",
        buffers: Collection[str] = (),
        examples: Mapping[int, int] | None = None,
        server_optimizer: ServerOptimizer | None = None,
        spool: Spool | None = None,
        extra_arrays: Sequence[ExtraArray] = (),
    ) -> None:
        super().__init__(min_replies, examples)
        self.aggregator = aggregator
        self.seed = seed
        self.fraction_train = fraction_train
        self.fraction_evaluate = fraction_evaluate
        self.weighting = weighting
        self.buffers = frozenset(buffers)
        self.server_optimizer = server_optimizer
        self._other_optimizers: dict[int, ServerOptimizer] = {}  # of further networks, by number
        self._extras = ArrayCombiner(extra_arrays, aggregator.robust)
        self.roles: dict[int, str] = {}
        self._parameters = Parameters({})
        self._spool = spool or Spool()
        self._store: MemoryStore | FileStore = MemoryStore()

    def issues(self, context: RunContext) -> list[Issue]:
        """Return what the aggregator cannot withstand in a round of this run, and which labels are not supported."""
        problem = self.aggregator.problem(context.sampled, "this run samples {}")
        found = [Issue(ERROR, "strategy", f"strategy: {problem}")] if problem else []
        if self.one_label_each and context.labels_pixels:
            found.append(context.needs_one_label("strategy", context.settings.strategy.name, "choose robust"))
        if warning := self.aggregator.warning(context.sampled):
            found.append(Issue(WARNING, "strategy.aggregator", warning))
        mode = context.settings.privacy.mode
        if self.learns and mode != "none":
            found.append(
                Issue(WARNING, "privacy.mode", f"privacy.mode = {mode!r}: {self.learns} are sent without noise")
            )
        return found

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients of this round."""
        clients = self._sample("sample", server_round, grid, self.fraction_train)
        messages = _messages(clients, arrays, config, MessageType.TRAIN)
        self._parameters = parameters = Parameters(views(arrays), self.buffers)
        self._store = self._spool.store(len(messages), sum(parameters.sizes), parameters.dtype)
        self._add_optimizers(part.number for part in parameters.networks[1:])
        self._remember(arrays, messages)
        return messages

    def keep(self, update: Update[Arrays]) -> KeptArrays:
        """Return the update's step, and copies of its buffers: views would keep all that came in memory."""
        buffers = {name: array.copy() for name, array in update.kept.items() if name not in self._parameters}
        return KeptArrays(self._store.keep(self._parameters.step_to(update.kept)), buffers)

    def aggregate_updates(
        self, server_round: int, updates: list[Update[KeptArrays]], report: RoundReport
    ) -> tuple[Arrays | None, MetricRecord | None]:
        """Combine the updates, if they are enough for the aggregator."""
        self._store = MemoryStore()  # a file goes with the updates that are in it
        clients = [update.client for update in updates]
        report.skipped = self.aggregator.problem(len(updates)) or self.aggregator.missing(clients)
        if report.skipped:
            return None, None
        client_weights = self._client_weights(updates)
        parts = self._parameters.networks
        results = [self._combine(updates, client_weights, server_round, part) for part in parts]
        _record(report, updates, results[0])  # further networks have weights of their own, which are not recorded
        steps = [self._step(updates, result, part) for result, part in zip(results, parts, strict=True)]
        weights = {
            part.number: client_weights if result.weights is None else result.weights
            for result, part in zip(results, parts, strict=True)
        }
        combined = {
            **self._parameters.after(steps[0] if len(steps) == 1 else np.concatenate(steps)),
            **{
                name: self._named(updates, name, client_weights)
                if is_named(name)
                else self._buffer(updates, name, weights.get(network_of(name), client_weights))
                for name in updates[0].kept.buffers
            },
        }
        model = as_sent(combined, self._parameters.model)
        if not all(np.isfinite(array).all() for array in model.values()):  # a server optimizer may overflow
            report.skipped = "the combined model has values that are not finite"
            return None, None
        return model, _mean_metrics(updates, client_weights)

    def _add_optimizers(self, numbers: Iterable[int]) -> None:
        """Make sure that further networks have optimizers, copies of the first one's before it has done anything."""
        for number in numbers:
            if self.server_optimizer is not None and number not in self._other_optimizers:
                self._other_optimizers[number] = copy.deepcopy(self.server_optimizer)

    def _combine(
        self, updates: list[Update[KeptArrays]], client_weights: Doubles, server_round: int, part: NetworkPart
    ) -> Aggregate:
        aggregator = self.aggregator
        stream: list[str | int] = ["pre-steps", server_round, *([part.number] if part.number > 1 else [])]
        return aggregate(
            aggregator,
            [update.kept.step[part.place] for update in updates],
            client_weights,
            sizes=part.sizes,
            roles=[self.roles.get(update.client, "unknown") for update in updates],
            clients=[update.client for update in updates],
            seed=int(rng(self.seed, *stream).integers(2**63)),
            buffers=[_float_buffers(update.kept, part) for update in updates] if aggregator.measures_buffers else (),
        )

    def _step(self, updates: list[Update[KeptArrays]], result: Aggregate, part: NetworkPart) -> Vector:
        """Return the step that a network takes, (P,): the aggregate, or what its optimizer makes of it."""
        optimizer = self.server_optimizer
        if optimizer is None:
            return result.value
        if part.number > 1:
            optimizer = self._other_optimizers[part.number]
        steps = [update.kept.step[part.place] for update in updates]
        squared_norms = sum_over_blocks(steps, lambda _, block: np.einsum("nb,nb->n", block, block))
        return optimizer.apply(result.value, squared_norms, result.weights, self.aggregator.robust)

    def _named(self, updates: list[Update[KeptArrays]], name: str, client_weights: Doubles) -> Doubles:
        """Return the new value of a method's named array."""
        arrays = {update.client: update.kept.buffers[name] for update in updates}
        examples = {update.client: update.examples for update in updates}
        return self._extras.combine(name, arrays, examples, client_weights, self._parameters.model[name])

    def _client_weights(self, updates: list[Update[KeptArrays]]) -> Doubles:
        counts = np.array([update.examples for update in updates], np.float64)
        if self.weighting == "uniform":
            counts = np.ones_like(counts)
        elif self.aggregator.robust:
            counts = limited(counts)
        shares: Doubles = counts / counts.sum()
        return shares

    def _buffer(self, updates: list[Update[KeptArrays]], name: str, weights: Doubles) -> npt.NDArray[Any]:
        stacked = np.stack([update.kept.buffers[name] for update in updates], dtype=np.float64)
        if self.aggregator.robust:
            return np.median(stacked, axis=0)
        rest = 1 - weights.sum()  # lies on the global model
        start = self._parameters.model[name].astype(np.float64)
        return np.asarray(np.tensordot(weights, stacked, axes=1) + rest * start)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients that evaluate, if any."""
        if not self.fraction_evaluate:
            return []
        clients = self._sample("sample-evaluate", server_round, grid, self.fraction_evaluate)
        return _messages(clients, arrays, config, MessageType.EVALUATE)

    def aggregate_metrics(self, server_round: int, updates: list[Update[None]]) -> MetricRecord | None:
        """Return the median of each finite metric over the clients: one liar cannot move it far."""
        keys = updates[0].metrics
        return MetricRecord({key: float(np.median([update.metrics[key] for update in updates])) for key in keys})

    def summary(self) -> None:
        """Nothing to log: the run directory records every setting."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the next rounds need and no setting says; a subclass that remembers something adds it.

        What the dictionary may hold is in :mod:`server_app.storage.strategy_state`.
        """
        others = {number: one.state_dict() for number, one in self._other_optimizers.items()}
        extras = {"other_optimizers": others, "remembered_arrays": self._extras.state_dict()}
        return {
            "server_optimizer": None if self.server_optimizer is None else self.server_optimizer.state_dict(),
            **{name: kept for name, kept in extras.items() if kept},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        if (self.server_optimizer is None) != (state["server_optimizer"] is None):
            raise ValueError("one of the two has a server optimizer, and the other has none")
        others = state.get("other_optimizers", {})
        self._add_optimizers(others)
        for number, kept in others.items():
            self._other_optimizers[number].load_state_dict(kept)
        if self.server_optimizer is not None:
            self.server_optimizer.load_state_dict(state["server_optimizer"])
        self._extras.load_state_dict(state.get("remembered_arrays", {}))

    def _sample(self, stream: str, server_round: int, grid: Grid, fraction: float) -> list[int]:
        clients = sorted(grid.get_node_ids())
        size = max(1, round(fraction * len(clients)))
        return sorted(rng(self.seed, stream, server_round).choice(clients, size, replace=False).tolist())


def _float_buffers(kept: KeptArrays, part: NetworkPart) -> list[npt.NDArray[Any]]:
    """Return a network's buffers of floats; counters and a method's named arrays are none."""
    own = (name for name in kept.buffers if not is_named(name) and network_of(name) == part.number)
    return [kept.buffers[name] for name in own if kept.buffers[name].dtype.kind == "f"]


def _messages(clients: list[int], arrays: ArrayRecord, config: ConfigRecord, kind: str) -> list[Message]:
    record = RecordDict({"arrays": arrays, "config": config})
    return [Message(record, dst_node_id=client, message_type=kind) for client in clients]


def _record(report: RoundReport, updates: list[Update[KeptArrays]], result: Aggregate) -> None:
    """Put each client's distance to the result on record, its weight if the aggregator has weights, and remarks."""
    report.remarks += result.remarks
    for i, update in enumerate(updates):
        report.distances[update.client] = float(result.distances[i])
        if result.weights is not None:
            report.weights[update.client] = float(result.weights[i])


def _mean_metrics(updates: list[Update[KeptArrays]], client_weights: Doubles) -> MetricRecord:
    """Return the mean of each metric; a client's counts as much as its update may, (N,), whatever it claims."""
    means: dict[str, Any] = {
        key: float(np.average([update.metrics[key] for update in updates], weights=client_weights))
        for key in updates[0].metrics
    }
    return MetricRecord(means)
