"""Public examples: what a server may show a model that is no client's data and no test data, without labels.

They are the inputs of the examples that ``evaluate.validation`` sets aside at the server before the rest is divided
among the clients. Their labels stay where they are, and test data is never among them. But a model that has seen them
may look better on them: what is measured as ``validation_`` in such a run was not wholly unseen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.client_data import load_task, validation_examples
from tasks.protocol import Arrays, Mode
from tasks.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.base import Task


@dataclass(frozen=True)
class PublicExamples:
    """The server's examples, n of them, and the run's model on the device that looks at them.

    Attributes
    ----------
    settings, mode
        Of the run.
    pick_device
        What says on which device models compute; asked when the first one does.
    """

    settings: Settings
    mode: Mode
    pick_device: "Callable[[], torch.device]"

    @cached_property
    def task(self) -> "Task":
        """The task of the run."""
        return load_task(self.settings.task)

    @cached_property
    def device(self) -> "torch.device":
        """Where models compute."""
        return self.pick_device()

    @cached_property
    def features(self) -> "Tensor":
        """The raw features (n, ...).

        Raises
        ------
        ValueError
            If the server holds no examples out.
        """
        found = validation_examples(self.settings, self.mode)
        if found is None:
            raise ValueError("the server holds no examples out: set evaluate.validation = 0.1")
        return found.features

    def inputs(self, places: "Tensor") -> "Tensor":
        """Return some examples as a model takes them, (B, ...), on the device."""
        return self.task.prepare(self.features[places].to(self.device))

    def model(self, arrays: Arrays) -> "nn.Module":
        """Return the run's model with these weights, in evaluation mode and on the device."""
        from tasks.fresh_model import fresh_model  # slow
        from tasks.weights import load_arrays

        found = fresh_model(self.settings)
        load_arrays(found, arrays)
        return found.to(self.device).eval()
