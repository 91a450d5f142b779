"""Tasks, what they have in common: examples, the data of one client, the model, the measures, and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.features import features_of
from tasks.issues import ERROR, WARNING, Component, Issue, RunContext
from tasks.metrics import IGNORED, ClassReport, classification_metrics, server_metrics
from tasks.plugins import Registry
from tasks.validation_split import evaluating_share

PIXEL_METRICS = ("dice", "mean-iou")
Labels = npt.NDArray[np.int64]


class DataError(ValueError):
    """Data that is missing or does not fit; the message says what was expected and where it was looked for."""


@dataclass(frozen=True)
class Examples:
    """Examples in memory: raw ``features`` (N, ...) as stored on disk (uint8 for images), ``labels`` (N,)."""

    features: Tensor
    labels: Labels

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise DataError(f"{len(self.features)} examples but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> "Examples":
        """Return the examples at ``indices``, in that order."""
        return Examples(self.features[torch.from_numpy(indices)], self.labels[indices])


@dataclass(frozen=True)
class ClientData:
    """Data of one client: the labels it was given (possibly wrong) and each example's id in the whole set.

    True labels are deliberately not here: what only measurement may see never reaches a method.
    """

    client: int
    features: Tensor
    labels: Labels
    ids: npt.NDArray[np.int64]
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def class_counts(self) -> Labels:
        """Return how many examples, or pixels, carry each given label, (num_classes,)."""
        return np.bincount(self.labels[self.labels != IGNORED], minlength=self.num_classes).astype(np.int64)

    def take(self, places: npt.NDArray[np.int64]) -> "ClientData":
        """Return the examples at ``places``, in that order."""
        features = self.features[torch.from_numpy(places)]
        return replace(self, features=features, labels=self.labels[places], ids=self.ids[places])


class Task(Component, ABC):
    """One learning problem. Subclass this to bring your own; see ``tasks/images.py`` for two of them.

    Attributes
    ----------
    brings_own_data
        Whether a real node's data folder holds that site's own examples, all of them and with their labels as given;
        if not, every node has the same data set and takes its share of it.
    has_own_noise
        Whether training labels are wrong already, as people or the web gave them.
    labels_pixels
        Whether each pixel has a label, (n, H, W), and not each example.
    has_smooth_inputs
        Whether inputs are quantities that can be mixed and differentiated by; word numbers are not.
    has_strong_augmentation
        Whether it has a ``strong_augment``, as :class:`tasks.images.ImageTask` does.
    encodes_as
        What an encoder can take the examples for, "images" or "texts"; empty = it can not.
    encoder_digest
        SHA-256 of the encoder whose features the examples are; empty = there is none.
    """

    class_names: tuple[str, ...]
    default_model: str
    input_shape: tuple[int, ...]
    brings_own_data: bool = False
    has_own_noise: bool = False
    labels_pixels: bool = False
    has_smooth_inputs: bool = True
    has_strong_augmentation: bool = False
    encodes_as: str = ""
    encoder_digest: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def keeps_labels(self) -> bool:
        """Whether the noise ``auto`` adds none: labels are somebody's own, wrong already, or those of pixels."""
        return self.brings_own_data or self.has_own_noise or self.labels_pixels

    @abstractmethod
    def train_examples(self) -> Examples:
        """Load the examples that are divided among the clients (simulation).

        Raises
        ------
        DataError
            If the data is not where the configuration says.
        """

    @property
    def raw(self) -> "Task":
        """The task whose examples are as they were read; only one with an encoder has another than itself."""
        return self

    def first_examples(self, count: int) -> Examples:
        """Return up to ``count`` training examples, the first ones, to try something with."""
        examples = self.train_examples()
        return examples.take(np.arange(min(count, len(examples))))

    def train_labels(self) -> Labels:
        """Return the labels of all training examples, (n, ...)."""
        return self.train_examples().labels

    def train_ids(self) -> npt.NDArray[np.int64]:
        """Return the id of each training example, (n,): its place in the published order unless a task says else."""
        return np.arange(len(self.train_examples()))

    def example_names(self, ids: npt.NDArray[np.int64]) -> Sequence[str]:
        """Return what the owner of examples calls them, such as file names; the default is their ids.

        No two examples of a client have the same name. Each client finds these names in its own label audit.
        """
        return [str(number) for number in ids]

    def groups(self) -> npt.NDArray[np.str_] | npt.NDArray[np.int64] | None:
        """Return where each training example comes from (hospital, author, folder), (n,), or None if that is unknown.

        The partition ``natural`` makes each group one client.
        """
        return None

    @abstractmethod
    def test_examples(self) -> Examples:
        """Load the clean examples that only the server's evaluation sees.

        Raises
        ------
        DataError
            If the data is not where the configuration says.
        """

    def has_test_examples(self) -> bool:
        """Tell whether there are clean test examples; without them the server does not evaluate."""
        return True

    def issues(self, context: RunContext) -> list[Issue]:
        """Return what such a run lacks or configures in vain because of its task."""
        run, found = context.settings.run, list[Issue]()
        if not context.has_test_examples:
            found.append(_unevaluated(context))
        if run.monitor in PIXEL_METRICS and not self.labels_pixels:
            text = (
                f"run.monitor = {run.monitor!r} is measured where each pixel has a label, and here each example has one"
            )
            found.append(Issue(ERROR, "run.monitor", text, "choose accuracy, balanced-accuracy, macro-f1 or loss"))
        if context.settings.task.statistics and not isinstance(self, FittedTask):
            text = "task.statistics has no effect: nothing of this task depends on statistics of the clients' examples"
            found.append(Issue(WARNING, "task.statistics", text))
        return found

    def data_issues(self) -> list[Issue]:
        """Return what is odd but allowed about the training examples, such as what was left out; reads them."""
        return []

    def data_state(self, part: str, cache: Path) -> str | None:
        """Return a text that changes with the examples of ``part`` ("train" or "test"); None = only reading them tells.

        By it what was made of the examples is found again without reading them. What lies in the folder ``cache`` is
        no part of the data, wherever that is.
        """
        return None

    def block_reader(self, part: str) -> tuple[Labels, Callable[[int, int], Tensor]] | None:
        """Return the labels (n,) of ``part`` and what reads its raw examples ``start`` to ``stop`` - 1, or None.

        With it an encoder needs no copy of all of them; None = they can only be had together.
        """
        return None

    def encoder_inputs(self, features: Tensor) -> Tensor:
        """Return a raw batch as encoders take it: images (n, C, H, W) between 0 and 1, or token numbers (n, L).

        Raises
        ------
        DataError
            If an encoder cannot take the examples for anything.
        """
        raise DataError("the examples of this task are nothing that an encoder takes")

    def check(self) -> None:
        """Raise ``DataError`` if the data cannot be there. Cheap: called before any client starts."""
        return

    @abstractmethod
    def prepare(self, features: Tensor) -> Tensor:
        """Turn a raw batch (N, ...), already on its device, into a model's input: float32, or word numbers as int64."""

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return a randomly changed copy of a raw training batch; the default changes nothing."""
        return features

    def features(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the last layer of ``model`` is given, (N, F), from prepared ``inputs``; see `tasks.features`."""
        return features_of(model, inputs)

    @abstractmethod
    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named model ("auto" = ``default_model``) for this task's inputs and classes.

        Raises
        ------
        PluginError
            If the model is unknown or its arguments do not fit.
        """

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the measures of ``logits`` (N, K) against true ``labels`` (N,); higher is better."""
        return classification_metrics(logits, labels)


class FittedTask(Task):
    """A task whose inputs depend on statistics of all clients' examples, such as the mean of a column.

    Before the first round the clients are asked for their :meth:`summary`, and the server merges the answers. From then
    on everybody builds the task with the merged statistics; nobody builds a model for it before. Until then its
    examples look as if there were no others than those of this folder.

    Attributes
    ----------
    statistics
        The merged statistics as text; empty until they are known.
    """

    statistics: str = ""

    @abstractmethod
    def summary(self, ids: npt.NDArray[np.int64]) -> dict[str, list[int] | list[float]]:
        """Return what a client says of its examples with these ids: metrics, which reach the server."""

    @abstractmethod
    def in_words(self, metrics: Mapping[str, Any]) -> str:
        """Return what a summary says, for the log of the site that it leaves."""

    @abstractmethod
    def read_summary(self, metrics: Mapping[str, Any], examples: int) -> Any:
        """Return the summary behind the metrics that a client with so many examples has sent.

        Raises
        ------
        ValueError
            If it is none; whatever else this raises is the client's fault too.
        """

    @abstractmethod
    def merge(self, summaries: Mapping[int, Any]) -> "Merged":
        """Return the statistics of all clients, from the summaries by client."""

    @abstractmethod
    def outline(self) -> str:
        """Say in half a line which statistics these are, for the record of the run."""


@dataclass(frozen=True)
class Merged:
    """Merged statistics as text, by client why its summary is left out and it with it, and what is worth a warning."""

    statistics: str
    problems: Mapping[int, str]
    notes: tuple[str, ...] = ()


RUN_SETS = ("data_path", "bad_data", "cache", "tokens", "statistics")
TASKS = Registry("task", Task, run_sets=RUN_SETS)


@torch.no_grad()  # not inference_mode: what a model makes and keeps in its first forward pass must be fit for training
def predict(model: nn.Module, task: Task, features: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Return the logits (N, K) of raw ``features`` (N, ...) on the CPU; evaluation mode, no augmentation."""
    model.to(device).eval()
    return torch.cat(
        [model(task.prepare(batch.to(device))).float().cpu() for batch in torch.split(features, batch_size)]
    )


def evaluate(
    model: nn.Module, task: Task, examples: Examples, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Return the mean cross-entropy as ``loss`` together with the task's own measures."""
    logits = predict(model, task, examples.features, batch_size, device)
    return _measures(task, logits, torch.from_numpy(examples.labels))


def evaluate_at_server(
    model: nn.Module, task: Task, examples: Examples, batch_size: int, device: torch.device
) -> tuple[dict[str, float], ClassReport]:
    """Return what :func:`evaluate` does, the measures that only the server takes, and what it counted of each class.

    A task that has a measure of the same name as one of the latter is believed.
    """
    logits = predict(model, task, examples.features, batch_size, device)
    labels = torch.from_numpy(examples.labels)
    measures = _measures(task, logits, labels)
    more, report = server_metrics(logits, labels)
    return {**measures, **{name: value for name, value in more.items() if name not in measures}}, report


def _measures(task: Task, logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {"loss": F.cross_entropy(logits, labels).item(), **task.metrics(logits, labels)}


def _unevaluated(context: RunContext) -> Issue:
    text = "there is no clean test data, so the server does not evaluate"
    if context.validation == "server":
        text = "there is no clean test data: the server only measures on the examples that it holds out to choose by"
        return Issue(WARNING, "task.data-path", text)
    if evaluating_share(context.settings):
        return Issue(WARNING, "task.data-path", f"{text}, only the clients do, on their own labels")
    remedy = (
        "name a task.data-path with test data, or let the clients measure on their own labels, "
        "federation.fraction-evaluate = 1.0"
    )
    return Issue(WARNING, "task.data-path", text, remedy)
