"""Re-weighting aggregators: mean, Krum, Multi-Krum, MoNNA, centered clipping, distance-aware aggregation.

Krum's score of an update is the sum of its squared distances to its n - f - 2 nearest other updates: small for an
update that has many close neighbours. Ties go to the first client.

Sources: the mean is FedAvg's (McMahan, Moore, Ramage, Hampson, Aguera y Arcas, AISTATS 2017); Krum and Multi-Krum
(Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017); MoNNA (Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan,
ICML 2023); centered clipping (Karimireddy, He, Jaggi, ICML 2021);
distance-aware aggregation is FedNoRo's (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from strategies.aggregators.base import Reweighting, Tolerant, kept_weights
from strategies.aggregators.registry import AGGREGATORS
from strategies.gram import Doubles, UpdateMatrix, mixture_distances, squared_distances
from tasks.issues import ERROR, Issue, RunContext


@AGGREGATORS.register("mean", "McMahan et al., AISTATS 2017", "https://arxiv.org/abs/1602.05629")
class Mean(Reweighting):
    """Mean of the updates, weighted by the client weights.

    Breakdown: none tolerated; a single client can move the result anywhere.
    """

    robust = False

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the client weights."""
        return client_weights

    def weigh(self, matrix: UpdateMatrix, client_weights: Doubles) -> Doubles:
        """Return the client weights, without the cost of a Gram matrix."""
        return client_weights


@AGGREGATORS.register("krum", "Blanchard et al., NeurIPS 2017", "https://arxiv.org/abs/1703.02757")
@dataclass(frozen=True)
class Krum(Tolerant, Reweighting):
    """The one update with the smallest sum of squared distances to its n - f - 2 nearest others.

    Breakdown: withstands f hostile updates among n >= 2 f + 3. The result is one client's update, so it learns slowly
    from clients that differ, and the client weights do not matter.
    """

    beside: ClassVar[int] = 3

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return 1 for the chosen update, else 0."""
        scores = krum_scores(squared_distances(gram), self.hostile(len(client_weights)))
        return np.asarray(np.eye(len(client_weights))[int(scores.argmin())], np.float64)


@AGGREGATORS.register("multi-krum", "Blanchard et al., NeurIPS 2017", "https://arxiv.org/abs/1703.02757")
@dataclass(frozen=True)
class MultiKrum(Tolerant, Reweighting):
    """Mean of the m updates with the smallest Krum scores, weighted by their client weights.

    Breakdown: withstands f hostile updates among n >= 2 f + 3, with m <= n - f. Where f is left out, m bounds it too.

    Parameters
    ----------
    m
        Number of updates to keep; left out, n - f.
    """

    m: int | None = None
    beside: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None and self.m < 1:
            raise ValueError(f"m = {self.m}: at least one update must be kept")

    @property
    def minimum(self) -> int:
        """Fewest updates: 2 f + 3, and as many as are kept beside the hostile ones."""
        return max(super().minimum, (self.m or 1) + (self.f or 0))

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand; at least as many are left out."""
        return min(super().hostile(num_updates), num_updates - (self.m or 1))

    def __str__(self) -> str:
        """Return the name, with f and m where they are given."""
        return super().__str__() + ("" if self.m is None else f"{' with' if self.f is None else ','} m = {self.m}")

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the client weights of the kept updates, divided by their sum; 0 for the others."""
        n = len(client_weights)
        f = self.hostile(n)
        kept = np.argsort(krum_scores(squared_distances(gram), f), kind="stable")[: self.m or n - f]
        return kept_weights(kept, client_weights)


@AGGREGATORS.register("monna", "Farhadkhani et al., ICML 2023", "https://arxiv.org/abs/2209.10931")
@dataclass(frozen=True)
class Monna(Tolerant, Reweighting):
    """Mean of the n - f updates nearest to that of one trusted client, itself included.

    MoNNA is made for peers, each of which trusts itself (https://arxiv.org/abs/2209.10931); at a server it is for a
    client that the server's operator runs or vouches for. All others are judged by their distance to it, so clients
    whose data differ from the trusted one's count less. The kept updates weigh with their client weights.

    Breakdown: withstands f hostile updates among n >= 2 f + 1 while the trusted client is honest, and none otherwise.
    A round without the trusted client's update is skipped.

    Parameters
    ----------
    trusted
        Id of the client that is trusted.
    """

    trusted: int = 0
    name = "monna"
    needs_clients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trusted < 0:
            raise ValueError(f"trusted = {self.trusted}: must be the id of a client, 0 or more")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return that the trusted client does not exist, or does not train in every round."""
        federation = context.settings.federation
        found = super().issues(context)
        if self.trusted >= federation.num_clients:
            text = f"monna trusts client {self.trusted}, and there are the clients 0 to {federation.num_clients - 1}"
            found.append(Issue(ERROR, "strategy.aggregator-args", text, "choose one of them as trusted"))
        elif context.sampled < federation.num_clients:
            text = (
                f"monna needs the update of client {self.trusted} in every round, and {context.sampled} of "
                f"{federation.num_clients} clients train in one"
            )
            found.append(Issue(ERROR, "federation.fraction-train", text, "set federation.fraction-train = 1.0"))
        return found

    def missing(self, clients: Collection[int]) -> str:
        """Return that the trusted client's update is not there, or an empty string."""
        return "" if self.trusted in clients else f"monna has no update of client {self.trusted}, which it trusts"

    def weigh(self, matrix: UpdateMatrix, client_weights: Doubles) -> Doubles:
        """Return the client weights of the kept updates, divided by their sum; 0 for the others."""
        return self._weights(matrix.gram[:-1, :-1], client_weights, matrix.clients.index(self.trusted))

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the weights where the clients are those with the ids 0 to N - 1."""
        return self._weights(gram, client_weights, self.trusted)

    def _weights(self, gram: Doubles, client_weights: Doubles, pivot: int) -> Doubles:
        squared = squared_distances(gram)[pivot]
        squared[pivot] = -1  # its own nearest, also beside equal ones
        kept = np.argsort(squared, kind="stable")[: len(squared) - self.hostile(len(squared))]
        return kept_weights(kept, client_weights)


def krum_scores(squared: Doubles, f: int) -> Doubles:
    """Return every update's score, (n,), from the squared distances (n, n), with f of the n updates hostile."""
    others = squared + np.diag(np.full(len(squared), np.inf))
    nearest = np.sort(others, axis=1)[:, : max(len(squared) - f - 2, 1)]
    return np.asarray(nearest.sum(axis=1), np.float64)


def select_repeatedly(squared: Doubles, f: int, count: int) -> npt.NDArray[np.int64]:
    """Return ``count`` updates, each chosen by Krum among those not chosen before."""
    left = list(range(len(squared)))
    chosen = []
    for _ in range(count):
        scores = krum_scores(squared[np.ix_(left, left)], f)
        chosen.append(left.pop(int(scores.argmin())))
    return np.array(chosen)


@AGGREGATORS.register("centered-clipping", "Karimireddy, He, Jaggi, ICML 2021", "https://arxiv.org/abs/2012.10333")
@dataclass(frozen=True)
class CenteredClipping(Reweighting):
    """Go from the global model to the mean of the updates, each clipped to a ball around the present point.

    One iteration is ``v <- v + sum_i p_i (x_i - v) min(1, radius / |x_i - v|)``, from v = 0, the global model. So a
    hostile update moves the result by at most its client weight times the radius in each iteration.

    Breakdown: withstands hostile clients that are less than half of the clients and hold less than half of the client
    weights; the error grows with their share of these and the radius. An infinite radius is the mean.

    Parameters
    ----------
    radius
        Radius of the ball, in the units of the weights; 0 = the median distance of the updates to the present point.
    iterations
        Number of iterations; with a fixed small radius more are needed to come near the updates.
    """

    radius: float = 0.0
    iterations: int = 5
    shrinks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ValueError(f"radius = {self.radius}: must be at least 0")
        if self.iterations < 1:
            raise ValueError(f"iterations = {self.iterations}: must be at least 1")

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the updates' weights and, last, that of the global model."""
        weights = np.eye(len(gram))[-1]
        for _ in range(self.iterations):
            distances = mixture_distances(gram, weights)[:-1]
            radius = self.radius or float(np.median(distances))
            steps = client_weights * np.minimum(1, radius / distances)
            weights = (1 - steps.sum()) * weights + np.append(steps, 0)
        return np.asarray(np.maximum(weights, 0), np.float64)


@AGGREGATORS.register("distance-aware", "FedNoRo; Wu et al., IJCAI 2023", "https://arxiv.org/abs/2305.05230")
@dataclass(frozen=True)
class DistanceAware(Reweighting):
    """Weighted mean in which clients with noisy labels count less, the further they are from every clean one.

    With d_i the distance of client i to the nearest clean client (0 for clean clients) and D = d / max d, the weight is
    proportional to ``p_i exp(-D_i)``, p the client weights. It needs roles: a client of unknown role counts as noisy,
    and without any clean client, or without any other, the result is the mean.

    Breakdown: none tolerated. It is made for wrong labels, not for hostile updates: the smallest factor is 1/e.

    Parameters
    ----------
    distance
        ``tensors``: sum of the tensors' distances, as in the authors' code; ``squared``: squared distance of the whole
        update, as in the FedELC paper (Jiang et al., CIKM 2024).
    buffers
        Whether BatchNorm's running means and variances count in the distances, as in the authors' code. Their sizes are
        those of activations, so they can outweigh the parameters; without them distances are those of the updates.
    """

    distance: Literal["tensors", "squared"] = "tensors"
    buffers: bool = False
    robust = False
    needs_clients: ClassVar[bool] = True
    reads_role: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.distance not in ("tensors", "squared"):
            raise ValueError(f"distance must be 'tensors' or 'squared', got {self.distance!r}")

    @property
    def measures_buffers(self) -> bool:  # type: ignore[override]
        """Whether the update matrix must hold the clients' buffers."""
        return self.buffers

    def weigh(self, matrix: UpdateMatrix, client_weights: Doubles) -> Doubles:
        """Return every client's weight from its role and its distance to the nearest clean client."""
        clean = np.array([role == "clean" for role in matrix.roles])
        if clean.all() or not clean.any():
            return client_weights
        distances = np.where(clean, 0.0, self._distances(matrix)[:, clean].min(axis=1))
        weights = client_weights * np.exp(-distances / (distances.max() or 1.0))
        return np.asarray(weights / weights.sum(), np.float64)

    def weights(self, gram: Doubles, client_weights: Doubles) -> Doubles:
        """Return the client weights: without roles it is the mean."""
        return client_weights

    def _distances(self, matrix: UpdateMatrix) -> Doubles:
        beside = [_apart(values) for values in zip(*matrix.buffers, strict=True)]
        if self.distance == "squared":
            return np.asarray(np.sum([squared_distances(matrix.gram[:-1, :-1]), *beside], axis=0), np.float64)
        squared = [squared_distances(tensor.gram[:-1, :-1]) for _, tensor in matrix.tensors()]
        return np.asarray(np.sum([np.sqrt(one) for one in (*squared, *beside)], axis=0), np.float64)


def _apart(values: Sequence[npt.NDArray[Any]]) -> Doubles:
    """Return the squared distances (N, N) of the same array at N clients."""
    rows = np.stack([array.reshape(-1) for array in values], dtype=np.float64)
    return np.stack([np.square(rows - row).sum(1) for row in rows])
