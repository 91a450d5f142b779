"""Evaluation at the server: the global model on test data, and on validation data by which the best one is chosen.

No client ever sees either. What is measured on validation data has names that begin with ``validation_``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from client_app.attacks import configured_attack, federation_facts
from client_app.methods import METHODS
from client_app.trainer import pick_device
from tasks.base import Examples, Task, evaluate_at_server, predict
from tasks.client_data import load_task, validation_examples
from tasks.extra_arrays import NAMED, ExtraArray, further_networks, of_network
from tasks.fresh_model import fresh_model, initial_model
from tasks.metrics import ClassReport
from tasks.protocol import Arrays, Mode
from tasks.settings import AUTO, Settings
from tasks.validation_split import VALIDATION
from tasks.weights import buffer_names, frozen_names, load_arrays, model_arrays, weights


class Ensemble(nn.Module):
    """Several networks as one, which answers the mean of their logits."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mean of the logits (N, K)."""
        return torch.stack([network(inputs) for network in self.networks]).mean(0)


class CentralEvaluation:
    """Holds the model of a run, its initial weights, the test data and what the server holds out for validation.

    Attributes
    ----------
    classes : ClassReport or None
        What the latest evaluation counted of each class in the test data.
    """

    def __init__(self, settings: Settings, mode: Mode = Mode.SIMULATION) -> None:
        self._settings = settings
        self.task: Task = load_task(settings.task)
        self.device = pick_device(settings.train.device)
        self.model: nn.Module = initial_model(settings)
        self.method = METHODS.build(settings.method.name, settings.method.args)
        self.classes: ClassReport | None = None
        self._has_test = self.task.has_test_examples()
        self._validation = validation_examples(settings, mode)
        attack = configured_attack(settings.attack) if self._has_test else None
        self._wanted = attack.probe(self.task.test_examples(), federation_facts(settings)) if attack else None

    @property
    def test_examples(self) -> int | None:
        """Number of test examples, None without any; images where pixels are labelled."""
        return len(self.task.test_examples()) if self._has_test else None

    def model_in_words(self) -> str:
        """Return the model's name, which the task gives where it is ``auto``, and its number of parameters."""
        chosen = self._settings.model.name
        size = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{self.task.default_model if chosen == AUTO else chosen}, {size:,} parameters"

    def initial_arrays(self) -> Arrays:
        """Return the weights and buffers before the first round; they follow from the seed and ``model.init``."""
        return {name: array.copy() for name, array in model_arrays(self.model).items()}

    def buffers(self) -> tuple[str, ...]:
        """Return the names of the arrays that are not parameters."""
        return buffer_names(self.model)

    def frozen(self) -> frozenset[str]:
        """Return the names of the arrays that stay as they are and do not travel."""
        return frozen_names(self.model)

    def extra_arrays(self) -> Sequence[ExtraArray]:
        """Return the named arrays that the client method exchanges.

        Raises
        ------
        ValueError
            If two of them have one name.
        """
        declared = list(self.method.extra_arrays(self.task, self.model))
        if len({one.name for one in declared}) < len(declared):
            raise ValueError(f"method {self._settings.method.name}: two of its extra arrays have one name")
        return declared

    def initial_extras(self) -> Arrays:
        """Return what clients are sent beside the model in the first round; it follows from the seed."""
        travelling = [name for name in weights(self.model) if name not in self.frozen()]
        found: Arrays = {}
        for number in range(2, self.method.networks + 1):
            arrays = model_arrays(initial_model(self._settings, number), travelling)
            found |= of_network(number, {name: array.copy() for name, array in arrays.items()})
        return found | {NAMED + one.name: one.first() for one in self.extra_arrays()}

    def measure(self, arrays: Arrays, extras: Arrays | None = None) -> dict[str, float]:
        """Return loss and task measures of a model on test and validation data, and what a backdoor achieves.

        Where the method says so it is the mean of the logits of all networks, the others of which are in ``extras``.
        """
        model = self._loaded(arrays)
        if self.method.ensemble:
            model = Ensemble([model, *map(self._loaded, further_networks(extras or {}).values())])
        measures: dict[str, float] = {}
        if self._has_test:
            measures, self.classes = self._measure(model, self.task.test_examples())
        if self._wanted is not None:
            measures["backdoor_success"] = self._success(model, self._wanted)
        if self._validation is not None:
            chosen_by, _ = self._measure(model, self._validation)
            measures |= {f"{VALIDATION}{name}": value for name, value in chosen_by.items()}
        return measures

    def _measure(self, model: nn.Module, examples: Examples) -> tuple[dict[str, float], ClassReport]:
        return evaluate_at_server(model, self.task, examples, self._settings.evaluate.batch_size, self.device)

    def _loaded(self, arrays: Arrays) -> nn.Module:
        model = fresh_model(self._settings)
        load_arrays(model, arrays)
        return model

    def _success(self, model: nn.Module, wanted: Examples) -> float:
        """Return the share of the attackers' test examples that the model takes for what they want."""
        logits = predict(model, self.task, wanted.features, self._settings.evaluate.batch_size, self.device)
        return (logits.argmax(1) == torch.from_numpy(wanted.labels)).double().mean().item()

    def due(self, server_round: int) -> bool:
        """Tell whether this round is evaluated; without test and validation data none is."""
        last = server_round == self._settings.num_server_rounds
        has_data = self._has_test or self._validation is not None
        return has_data and (last or server_round % self._settings.evaluate.every == 0)
