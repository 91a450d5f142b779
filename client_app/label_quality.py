"""Label quality of one client: confident learning, the loss profile, and the label audit.

Confident learning says which labels a model has reason to doubt (Northcutt, Jiang, Chuang, JAIR 2021). ``beliefs``
(n, K) are the probabilities that a model gives to the K classes of n examples, each row summing to one; ``labels`` (n,)
are the given labels, 0 to K-1.

The loss profile is all that a client says about its labels: the mean loss of each class under the global model, from
FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023). Where many labels are wrong, a model trained by all clients disagrees
with them.

The label audit is for the client's own eyes. After the last round each client lists its examples with the label that
was given and the label that seems right, those first that are most surely wrong by :mod:`client_app.noise_rate`. The
global model judges, also where the client method corrects labels: what many clients have learned judges better than
what one has learned about its own labels. On digits with up to 80 % wrong labels the model was right about 96 % of the
labels of noisy clients, masked-optim about 84 %, the mean of both about 92 %. What the method changed is listed beside
it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.methods import METHODS, ClientMethod, State
from client_app.noise_rate import Beliefs, NoiseEstimate, estimate_noise, with_mean
from tasks.base import ClientData, Labels, Task, predict
from tasks.client_data import load_task
from tasks.settings import Settings

ROUNDING = 1e-6  # equal probabilities that differ in their last bits count as equal
NO_BELIEF = 1e-6  # a probability below this is no confidence, whatever the threshold of its class
CAUTION = (
    "The model has learned from these labels, so it agrees with some wrong ones, and what is rare but right can look "
    "wrong to it: look at an example before you change its label."
)


def class_thresholds(beliefs: Beliefs, labels: Labels) -> Beliefs:
    """Return how sure the model is of each class where it is the given label, on average, (K,).

    Infinite for a class that is no example's label: nothing says what would be sure there.
    """
    counts = np.bincount(labels, minlength=beliefs.shape[1])
    sums = np.bincount(labels, beliefs[np.arange(len(labels)), labels], beliefs.shape[1])
    return mean_confidence(sums, counts)


def mean_confidence(sums: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Beliefs:
    """Return the mean of ``counts`` probabilities with these ``sums``, (K,); infinite for a class without any."""
    thresholds: Beliefs = np.where(counts, sums / np.maximum(counts, 1), np.inf)
    return thresholds


def confident_pairs(beliefs: Beliefs, labels: Labels) -> tuple[Labels, Labels]:
    """Return given label and confident label of the examples that the confident joint counts, (m,) each.

    The model is confident of a class where it reaches the class's threshold, and of the likeliest such class if there
    are several; examples without one are left out. Where the threshold of a class is next to nothing, everybody would
    reach it: a probability below ``NO_BELIEF`` counts for no class (cleanlab bounds its thresholds likewise).
    """
    confident = confident_classes(beliefs, class_thresholds(beliefs, labels))
    sure = confident >= 0
    return labels[sure], confident[sure]


def confident_classes(beliefs: Beliefs, thresholds: Beliefs) -> Labels:
    """Return the class of which the model is confident by the ``thresholds`` (K,), (n,); -1 where there is none."""
    needed = np.maximum(thresholds * (1 - ROUNDING), NO_BELIEF)
    reached = np.where(beliefs >= needed, beliefs, -1.0)
    return np.where(reached.max(1) >= 0, reached.argmax(1), -1)


def confident_joint(beliefs: Beliefs, labels: Labels) -> Labels:
    """Count the examples by given label (row) and by the label of which the model is confident (column), (K, K)."""
    joint: Labels = np.zeros((beliefs.shape[1],) * 2, np.int64)
    np.add.at(joint, confident_pairs(beliefs, labels), 1)
    return joint


def estimated_joint(beliefs: Beliefs, labels: Labels) -> Beliefs:
    """Estimate the joint distribution of given label (row) and true label (column), (K, K), summing to one.

    Each row of the confident joint is scaled to the share of its given label. A row without a count stands for a label
    that is right, as there is no evidence against it.
    """
    joint = confident_joint(beliefs, labels).astype(np.float64)
    empty = joint.sum(1) == 0
    joint[empty, empty] = 1.0
    shares = np.bincount(labels, minlength=len(joint)) / len(labels)
    scaled: Beliefs = joint / joint.sum(1, keepdims=True) * shares[:, None]
    return scaled


def joint_noise_rate(beliefs: Beliefs, labels: Labels) -> float:
    """Return the share of wrong labels by the confident joint: one minus the trace of :func:`estimated_joint`.

    Only the diagonal is computed, so that thousands of classes need no K x K table.
    """
    given, confident = confident_pairs(beliefs, labels)
    classes = beliefs.shape[1]
    counts = np.bincount(given, minlength=classes)
    agreed = np.bincount(given[given == confident], minlength=classes)
    right = np.where(counts, agreed / np.maximum(counts, 1), 1.0)
    shares = np.bincount(labels, minlength=classes) / len(labels)
    return max(0.0, float(1 - (right * shares).sum()))


def suspicion(beliefs: Beliefs, labels: Labels) -> Beliefs:
    """Return how much speaks against each given label, (n,), from 0 (nothing) to 1.

    (1 - p_given + max p_other) / 2: one minus the normalised margin. Above 1/2 the model prefers another label.
    """
    rows = np.arange(len(labels))
    others = beliefs.copy()
    others[rows, labels] = 0.0
    doubts: Beliefs = (1 - beliefs[rows, labels] + others.max(1)) / 2
    return doubts


def class_losses(
    model: nn.Module, task: Task, data: ClientData, batch_size: int, device: torch.device
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return a client's loss profile: evaluation mode, no augmentation, plain cross-entropy in nats.

    Returns
    -------
    losses
        Mean cross-entropy of the examples with each given label, (K,); 0 where there are none.
    counts
        Number of examples with each given label, (K,).
    """
    return losses_by_class(predict(model, task, data.features, batch_size, device), data)


def losses_by_class(logits: Tensor, data: ClientData) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return what :func:`class_losses` does, from a model's logits (n, K) of the examples."""
    each = F.cross_entropy(logits.double(), torch.from_numpy(data.labels), reduction="none").numpy()
    counts = data.class_counts()
    return np.bincount(data.labels, each, data.num_classes) / np.maximum(counts, 1), counts


@dataclass(frozen=True)
class Unseen:
    """How many labels nobody trained on, and how many of these the model contradicts: it cannot know them by heart."""

    examples: int
    contradicted: int

    def at_least(self) -> float:
        """Return the share that the model contradicts at least, with 95 % confidence (Clopper, Pearson, 1934)."""
        from scipy.special import betaincinv  # not scipy.stats, which takes most of a second to import

        if not self.contradicted:
            return 0.0
        return float(betaincinv(self.contradicted, self.examples - self.contradicted + 1, 0.05))


@dataclass(frozen=True)
class Audit:
    """One client's labels, the most suspicious first.

    Attributes
    ----------
    names
        Name of each example in the client's own data.
    given, suggested
        The label that the client has, and the label that seems right, (n,).
    confidence
        Probability of the suggested label, (n,).
    suspicion
        Probability that the given label is wrong, (n,), see :mod:`client_app.noise_rate`; above 1/2 another label is
        suggested.
    trained
        The label that the client method trained with in the end, (n,): the given one unless the method corrects labels.
    estimate
        The share of wrong labels with its interval, and the share of examples on which the model is right.
    joint_noise_rate
        Share of wrong labels by the confident joint, to compare.
    thresholds
        How sure the model is of each class on average where it is given, (K,); infinite where it never is.
    unseen
        What the model says of the labels on which nobody trained; None where there are none.
    """

    names: tuple[str, ...]
    given: Labels
    suggested: Labels
    confidence: Beliefs
    suspicion: Beliefs
    trained: Labels
    estimate: NoiseEstimate
    joint_noise_rate: float
    thresholds: Beliefs
    unseen: Unseen | None = None

    def __len__(self) -> int:
        return len(self.given)

    @property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Whether the client method changed the given label, (n,)."""
        return np.asarray(self.trained != self.given)

    @property
    def suggestions(self) -> int:
        """Number of labels that are rather wrong than right, for which another one is suggested; they come first."""
        return int((self.suggested != self.given).sum())

    @property
    def doubted(self) -> int:
        """Number of labels to look at first: as many as seem wrong, and at least those with a suggestion."""
        return max(self.suggestions, round(self.noise_rate * len(self)))

    @property
    def look(self) -> npt.NDArray[np.bool_]:
        """Whether each label is one to look at first, (n,)."""
        return np.arange(len(self)) < self.doubted

    @cached_property
    def expected(self) -> Beliefs:
        """How many of each label are expected to be wrong, (n,): the suspicion, raised to the estimated rate.

        The suspicion is by one model of the noise, and the estimate knows more.
        """
        return with_mean(self.suspicion, max(self.noise_rate, float(self.suspicion.mean())))

    @property
    def noise_rate(self) -> float:
        """Estimated share of wrong labels."""
        return self.estimate.rate

    def lines_to_find(self, share: float) -> int:
        """Return how many lines hold this share of the wrong labels that are expected in the whole list."""
        found = np.cumsum(self.expected)
        return int(np.searchsorted(found, share * found[-1] * (1 - ROUNDING))) + 1 if found[-1] > 0 else 0

    def by_class(self) -> list[tuple[int, int, float, int]]:
        """Return (given class, examples, expected wrong labels, those to look at), most expected per example first."""
        size = len(self.thresholds)
        counts = np.bincount(self.given, minlength=size).tolist()
        expected = np.bincount(self.given, self.expected, size).tolist()
        found = np.bincount(self.given[self.look], minlength=size).tolist()
        rows = [(k, counts[k], expected[k], found[k]) for k in range(size) if counts[k]]
        return sorted(rows, key=lambda row: (-row[2] / row[1], row[0]))

    def confusion(self) -> list[tuple[int, int, int]]:
        """Return (given, suggested, number of examples) of each pair that occurs, doubted ones first, by number."""
        pairs = Counter(zip(self.given.tolist(), self.suggested.tolist(), strict=True))
        triples = [(given, suggested, count) for (given, suggested), count in pairs.items()]
        return sorted(triples, key=lambda item: (item[0] == item[1], -item[2], item))


def audit_client(
    model: nn.Module,
    data: ClientData,
    settings: Settings,
    state: State | None,
    device: torch.device,
    trained_on: ClientData | None = None,
) -> Audit:
    """Audit a client's labels with the received model; ``state`` is what its method keeps, None for nothing.

    ``trained_on`` are those of the examples that nobody held out, in the same order; None = all.

    Raises
    ------
    ValueError
        If an example has more than one label, or the kept state belongs to other data.
    """
    if data.labels.ndim != 1:
        raise ValueError(
            f"the label audit takes one label per example, got labels of shape {data.labels.shape}; "
            "set audit.enabled = false for this task"
        )
    task = load_task(settings.task)
    logits = predict(model, task, data.features, settings.evaluate.batch_size, device)
    beliefs = torch.softmax(logits.double(), 1).numpy()
    method = METHODS.build(settings.method.name, settings.method.args)
    own = data if trained_on is None else trained_on
    learned, trained = np.isin(data.ids, own.ids), data.labels.copy()
    trained[learned] = trained_labels(method, state, own)
    audit = make_audit(beliefs, trained, data, task.example_names(data.ids))
    differs = beliefs.argmax(1)[~learned] != data.labels[~learned]
    return replace(audit, unseen=Unseen(len(differs), int(differs.sum())) if len(differs) else None)


def trained_labels(method: ClientMethod, state: State | None, data: ClientData) -> Labels:
    """Return the label of each example that the method trained with in the end, (n,).

    Raises
    ------
    ValueError
        If what the method keeps does not fit the client's examples.
    """
    belief = None if state is None else method.corrected(state)
    if belief is None:
        return data.labels
    expected = (len(data), data.num_classes)
    if belief.shape != expected or not np.isfinite(belief).all():
        raise ValueError(
            f"{type(method).__name__} keeps labels of shape {belief.shape}, but finite ones of shape {expected} belong "
            "to this client's data: the data has changed since the run began; start a new run"
        )
    labels: Labels = belief.argmax(1).astype(np.int64)
    return labels


def make_audit(beliefs: Beliefs, trained: Labels, data: ClientData, names: Sequence[str]) -> Audit:
    """Rank a client's labels by how surely they are wrong; ``beliefs`` (n, K) are the model's.

    Labels that are wrong as surely as each other are ranked by the model's margin, then keep the order of the data.
    """
    labels = data.labels
    estimate = estimate_noise(beliefs, labels)
    doubts = estimate.wrong(labels)
    rows, others = np.arange(len(labels)), estimate.posterior.copy()
    others[rows, labels] = -1.0
    suggested = np.where(doubts > 0.5, others.argmax(1), labels)
    order = np.lexsort((-suspicion(beliefs, labels), -doubts))
    return Audit(
        names=tuple(names[i] for i in order),
        given=labels[order],
        suggested=suggested[order],
        confidence=estimate.posterior[rows, suggested][order],
        suspicion=doubts[order],
        trained=trained[order],
        estimate=replace(estimate, posterior=estimate.posterior[order]),
        joint_noise_rate=joint_noise_rate(beliefs, labels),
        thresholds=class_thresholds(beliefs, labels),
    )
