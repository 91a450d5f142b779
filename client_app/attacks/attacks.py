"""Attacks that are built in: wrong labels, a backdoor, a small loss, changed updates, collusion.

What the kinds have in common, and what an update is, stands in ``client_app/attacks/base.py``.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from client_app.attacks.base import (
    ATTACKS,
    Attack,
    AttackContext,
    CollusionAttack,
    DataAttack,
    FederationFacts,
    LocalUpdate,
    UpdateAttack,
)
from client_app.losses.base import expect
from tasks.base import ClientData, Examples, Labels

FLIPS = ("reverse", "random", "pair")
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
NOISE_MODES = ("replace", "add")


@ATTACKS.register(
    "label-flip",
    "Biggio, Nelson, Laskov, ICML 2012; Tolpeygin et al., ESORICS 2020",
    "https://arxiv.org/abs/1206.6389",
    "https://arxiv.org/abs/2007.08432",
)
@dataclass(frozen=True)
class LabelFlip(DataAttack):
    """Train on examples whose labels are all wrong.

    With an odd number of classes K the middle one stays right where labels are reversed. Biggio, Nelson, Laskov, ICML
    2012; for federations Tolpeygin, Truex, Gursoy, Liu, ESORICS 2020.

    Parameters
    ----------
    mode
        "reverse": y becomes K - 1 - y; "random": any other class, drawn anew in every round; "pair": (y + 1) mod K.
    scale
        Factor of the update.
    """

    mode: str = "reverse"
    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(self.mode in FLIPS, f"mode = {self.mode!r}: must be one of {', '.join(FLIPS)}")
        expect(0 < self.scale < np.inf, f"scale = {self.scale}: must be above 0")

    def poison(self, data: ClientData, facts: FederationFacts, draws: np.random.Generator) -> ClientData:
        """Return the same examples with wrong labels."""
        return replace(data, labels=flipped(data.labels, data.num_classes, self.mode, draws))


def flipped(labels: Labels, num_classes: int, mode: str, draws: np.random.Generator) -> Labels:
    """Return wrong labels, shaped like ``labels``; negative labels, which mean "no label here", stay."""
    if mode == "reverse":
        wrong = num_classes - 1 - labels
    elif mode == "pair":
        wrong = (labels + 1) % num_classes
    else:
        wrong = (labels + draws.integers(1, num_classes, labels.shape)) % num_classes
    return np.where(labels < 0, labels, wrong)


@ATTACKS.register(
    "backdoor",
    "Gu et al., 2017; Bagdasaryan et al., AISTATS 2020",
    "https://arxiv.org/abs/1708.06733",
    "https://arxiv.org/abs/1807.00459",
)
@dataclass(frozen=True)
class Backdoor(DataAttack):
    """Teach the model to take every image with a small patch for class ``target``, and to be right otherwise.

    In every round a drawn ``share`` of the client's images get the patch and the label ``target``. The patch is a
    square of ``size`` pixels in a ``corner``, in all channels; ``value`` is its brightness, 1 = white. The update is
    multiplied by ``scale``: with scale = clients / hostile clients the plain mean becomes the attackers' model (model
    replacement, Bagdasaryan, Veit, Hua, Estrin, Shmatikov, AISTATS 2020). The patch is that of Gu, Dolan-Gavitt, Garg,
    BadNets, 2017.

    Parameters
    ----------
    target
        Class that patched images are taken for.
    size
        Pixels of a side of the patch.
    value
        Brightness of the patch, from 0 to 1 = white.
    corner
        Where the patch is: "top-left", "top-right", "bottom-left" or "bottom-right".
    share
        Share of the client's images that get the patch, drawn anew in every round.
    scale
        Factor of the update; clients / hostile clients makes the plain mean the attackers' model.
    """

    target: int = 0
    size: int = 2
    value: float = 1.0
    corner: str = "bottom-right"
    share: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(self.target >= 0, f"target = {self.target}: must be a class, 0 or more")
        expect(self.size >= 1, f"size = {self.size}: must be at least 1 pixel")
        expect(0 <= self.value <= 1, f"value = {self.value}: must be from 0 (black) to 1 (white)")
        expect(self.corner in CORNERS, f"corner = {self.corner!r}: must be one of {', '.join(CORNERS)}")
        expect(0 < self.share <= 1, f"share = {self.share}: must be above 0 and at most 1")
        expect(0 < self.scale < np.inf, f"scale = {self.scale}: must be above 0")

    def problem(self, facts: FederationFacts) -> str:
        """Return what is wrong with the target class or the features, if anything."""
        if facts.brightest is None:
            return "a patch of pixels needs a task with images"
        if self.target >= facts.num_classes:
            return f"target = {self.target}: the task has the classes 0 to {facts.num_classes - 1}"
        return ""

    def poison(self, data: ClientData, facts: FederationFacts, draws: np.random.Generator) -> ClientData:
        """Return the examples, a share of them with patch and target label."""
        chosen = draws.permutation(len(data))[: max(1, round(self.share * len(data)))]
        features, labels = data.features.clone(), data.labels.copy()
        features[chosen] = self.stamp(features[chosen], facts)
        labels[chosen] = self.target
        return replace(data, features=features, labels=labels)

    def probe(self, test: Examples, facts: FederationFacts) -> Examples | None:
        """Return the test images of all other classes, with the patch and the target as their label."""
        others = test.take(np.flatnonzero(test.labels != self.target))
        return Examples(self.stamp(others.features, facts), np.full_like(others.labels, self.target))

    def stamp(self, images: Tensor, facts: FederationFacts) -> Tensor:
        """Return a copy of stored images (N, C, H, W) with the patch."""
        vertical, horizontal = self.corner.split("-")
        rows = slice(None, self.size) if vertical == "top" else slice(-self.size, None)
        columns = slice(None, self.size) if horizontal == "left" else slice(-self.size, None)
        stamped = images.clone()
        stamped[:, :, rows, columns] = round(self.value * (facts.brightest or 0))
        return stamped


@ATTACKS.register("small-loss")
@dataclass(frozen=True)
class SmallLoss(Attack):
    """Make consistent wrong labels look easy, so that filters by loss keep them and filters by distance see nothing.

    A filter by loss takes what has a small loss for right: clients with a small mean loss, or a client's examples with
    a small loss under the global model. In every round each hostile client

    1. trains honestly, and keeps the length of that update and its training loss;
    2. trains again from the received model, on labels that are all wrong in the same way, class y as (y + 1) mod K, for
       ``effort`` times as many epochs, until these labels have a small loss;
    3. sends the second update with the length of the first, and reports the training loss of the first.

    So the server sees an update of the usual length from a client with a low loss. If the model follows, the wrong
    labels of honest clients that are wrong in the same way (pair noise) get a small loss too. Whether small-loss
    filters withstand this is an open question: it is raised, not published as an attack.

    Parameters
    ----------
    effort
        How many times as many epochs as an honest client it trains on the wrong labels.
    """

    effort: int = 3

    def __post_init__(self) -> None:
        expect(self.effort >= 1, f"effort = {self.effort}: must be at least 1")

    def act(self, context: AttackContext) -> LocalUpdate:
        """Return the update towards wrong labels, dressed as an honest one."""
        honest = context.train(context.data, 1)
        wrong = flipped(context.data.labels, context.data.num_classes, "pair", context.draws)
        taught = context.train(replace(context.data, labels=wrong), self.effort)
        length = torch.linalg.vector_norm(taught.update)
        factor = torch.linalg.vector_norm(honest.update) / length if length > 0 else 1.0
        return replace(taught, update=factor * taught.update, metrics=honest.metrics, state=honest.state)


@ATTACKS.register("sign-flip", "Li et al., AAAI 2019", "https://arxiv.org/abs/1811.03761")
@dataclass(frozen=True)
class SignFlip(UpdateAttack):
    """Send the honest update backwards: -scale x update.

    Li, Xu, Chen, Giannakis, Ling, AAAI 2019.

    Parameters
    ----------
    scale
        Length of what is sent, in lengths of the honest update.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(0 < self.scale < np.inf, f"scale = {self.scale}: must be above 0")

    def forge(self, update: Tensor, facts: FederationFacts, draws: np.random.Generator) -> Tensor:
        """Return the reversed update."""
        return -self.scale * update


@ATTACKS.register("gaussian", "Blanchard et al., NeurIPS 2017", "https://arxiv.org/abs/1703.02757")
@dataclass(frozen=True)
class Gaussian(UpdateAttack):
    """Send Gaussian noise of standard deviation ``std`` per parameter.

    In place of the update as in Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017, or on top of it.

    Parameters
    ----------
    std
        Standard deviation of the noise, in the units of the weights.
    mode
        "replace": noise in place of the update; "add": noise on top of it.
    """

    std: float = 1.0
    mode: str = "replace"

    def __post_init__(self) -> None:
        expect(0 < self.std < np.inf, f"std = {self.std}: must be above 0")
        expect(self.mode in NOISE_MODES, f"mode = {self.mode!r}: must be one of {', '.join(NOISE_MODES)}")

    def forge(self, update: Tensor, facts: FederationFacts, draws: np.random.Generator) -> Tensor:
        """Return noise, or the update plus noise."""
        drawn = torch.from_numpy(draws.standard_normal(len(update), np.float32)).to(update)
        return self.std * drawn if self.mode == "replace" else update + self.std * drawn


@ATTACKS.register("scaling", "Bagdasaryan et al., AISTATS 2020", "https://arxiv.org/abs/1807.00459")
@dataclass(frozen=True)
class Scaling(UpdateAttack):
    """Send a multiple of the honest update, so that it decides the mean.

    ``factor`` = 0 stands for clients / hostile clients, with which the plain mean of equal weights becomes the mean of
    the attackers' models where honest updates cancel: model replacement, Bagdasaryan, Veit, Hua, Estrin, Shmatikov,
    AISTATS 2020. The attack ``backdoor`` takes this factor as its ``scale``.

    Parameters
    ----------
    factor
        Factor of the update; 0 takes clients / hostile clients.
    """

    factor: float = 0.0

    def __post_init__(self) -> None:
        expect(
            0 <= self.factor < np.inf, f"factor = {self.factor}: must be above 0, or 0 for clients / hostile clients"
        )

    def forge(self, update: Tensor, facts: FederationFacts, draws: np.random.Generator) -> Tensor:
        """Return the larger update."""
        return (self.factor or facts.num_clients / facts.num_hostile) * update


@ATTACKS.register("alie", "Baruch, Baruch, Goldberg, NeurIPS 2019", "https://arxiv.org/abs/1902.06156")
@dataclass(frozen=True)
class Alie(CollusionAttack):
    """A little is enough: send mean - z x standard deviation of the honest updates, parameter by parameter.

    So small a shift hides among the honest updates, yet it always points the same way. ``z`` = 0 stands for
    :func:`largest_hidden_shift`. Mean and population standard deviation are those over the hostile clients' own honest
    updates, as the attackers do not see others. Baruch, Baruch, Goldberg, NeurIPS 2019.

    Parameters
    ----------
    z
        Standard deviations by which the mean is shifted; 0 takes :func:`largest_hidden_shift`.
    """

    z: float = 0.0

    def __post_init__(self) -> None:
        expect(0 <= self.z < math.inf, f"z = {self.z}: must be above 0, or 0 for the paper's value")

    def problem(self, facts: FederationFacts) -> str:
        """Return why there is no shift, if so."""
        clients, hostile = facts.num_clients, facts.num_hostile
        if hostile < 2:
            return "one hostile client has no standard deviation to hide in: raise attack.share"
        shift = self.z or largest_hidden_shift(clients, hostile)
        if not 0 < shift < math.inf:
            return (
                f"the paper's z for {hostile} hostile of {clients} clients is {shift:.2g}, "
                'expected one above 0: set it, as in attack.args = "z = 1.0"'
            )
        return ""

    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return the shifted mean."""
        shift = self.z or largest_hidden_shift(facts.num_clients, facts.num_hostile)
        return updates.mean(0) - shift * updates.std(0, correction=0)


def largest_hidden_shift(clients: int, hostile: int) -> float:
    """Return the z of Baruch et al. (2019) for n clients, m of them hostile; infinite from half of them on.

    The attackers need s = floor(n / 2 + 1) - m honest clients that lie further out than they do, to be on the side of
    a majority: z is the standard normal quantile of (n - m - s) / (n - m).

    >>> round(largest_hidden_shift(50, 12), 3)
    0.336
    """
    needed = clients // 2 + 1 - hostile
    return NormalDist().inv_cdf((clients - hostile - needed) / (clients - hostile)) if needed > 0 else math.inf


@ATTACKS.register("inner-product", "Xie, Koyejo, Gupta, UAI 2020", "https://arxiv.org/abs/1903.03936")
@dataclass(frozen=True)
class InnerProduct(CollusionAttack):
    """Inner product manipulation: send -epsilon x mean of the honest updates.

    The inner product with the true mean is negative, so the model climbs the loss; a small ``epsilon`` keeps the update
    close to the honest ones. The mean is that of the hostile clients' own honest updates. Xie, Koyejo, Gupta, UAI 2020.

    Parameters
    ----------
    epsilon
        How long the update is, in lengths of the honest mean; small ones stay close to honest updates.
    """

    epsilon: float = 0.5

    def __post_init__(self) -> None:
        expect(0 < self.epsilon < math.inf, f"epsilon = {self.epsilon}: must be above 0")

    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return the reversed mean."""
        return -self.epsilon * updates.mean(0)
