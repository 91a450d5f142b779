"""The label audit: which of a client's labels to look at, for the client's own eyes.

After the last round each client lists its examples with the label that was given and the label that seems right, the
most suspicious first. The global model decides which (confident learning), also where the client method corrects
labels: what many clients have learned judges better than what one has learned about its own labels. On digits with up
to 80 % wrong labels the model was right about 96 % of the labels of noisy clients, masked-optim about 84 %, the mean of
both about 92 %. What the method changed is listed beside it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client_app.confident import Beliefs, class_thresholds, estimated_joint, suspicion
from client_app.methods import METHODS, ClientMethod, State
from tasks.base import ClientData, Labels
from tasks.measure import predict
from tasks.settings import Settings
from tasks.shares import load_task

CAUTION = (
    "The model has learned from these labels, so it agrees with some wrong ones, and what is rare but right can look "
    "wrong to it: look at an example before you change its label."
)


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
        How much speaks against the given label, 0 to 1, (n,); above 1/2 another label is more probable.
    trained
        The label that the client method trained with in the end, (n,): the given one unless the method corrects labels.
    joint_noise_rate
        Share of wrong labels by the confident joint. With fewer than some hundred examples its thresholds per class are
        less sure than the plain count, :attr:`noise_rate`.
    thresholds
        How sure the model is of each class on average where it is given, (K,); infinite where it never is.
    """

    names: tuple[str, ...]
    given: Labels
    suggested: Labels
    confidence: Beliefs
    suspicion: Beliefs
    trained: Labels
    joint_noise_rate: float
    thresholds: Beliefs

    def __len__(self) -> int:
        return len(self.given)

    @property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Whether the client method changed the given label, (n,)."""
        return np.asarray(self.trained != self.given)

    @property
    def doubted(self) -> int:
        """Number of labels for which another one is more probable; they come first."""
        return int((self.suggested != self.given).sum())

    @property
    def noise_rate(self) -> float:
        """Estimated share of wrong labels: those that are doubted."""
        return self.doubted / len(self)

    def confusion(self) -> list[tuple[int, int, int]]:
        """Return (given, suggested, number of examples) of each pair that occurs, doubted ones first, by number."""
        pairs = Counter(zip(self.given.tolist(), self.suggested.tolist(), strict=True))
        triples = [(given, suggested, count) for (given, suggested), count in pairs.items()]
        return sorted(triples, key=lambda item: (item[0] == item[1], -item[2], item))


def audit_client(
    model: nn.Module, data: ClientData, settings: Settings, state: State | None, device: torch.device
) -> Audit:
    """Audit a client's labels with the received model; ``state`` is what its method keeps, None for nothing.

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
    return make_audit(beliefs, trained_labels(method, state, data), data, task.example_names(data.ids))


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
    """Rank a client's labels by what speaks against them; ``beliefs`` (n, K) are the model's."""
    doubts = suspicion(beliefs, data.labels)
    order = np.argsort(-doubts, kind="stable")
    return Audit(
        names=tuple(names[i] for i in order),
        given=data.labels[order],
        suggested=beliefs.argmax(1)[order],
        confidence=beliefs.max(1)[order],
        suspicion=doubts[order],
        trained=trained[order],
        joint_noise_rate=float(1 - np.trace(estimated_joint(beliefs, data.labels))),
        thresholds=class_thresholds(beliefs, data.labels),
    )
