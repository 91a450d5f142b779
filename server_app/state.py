"""State of a run between two rounds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp.strategy import Strategy

from server_app.registration import Registration
from server_app.storage.run_directory import RunDirectory
from strategies.base import FlowerStrategyAdapter, UpdateStrategy
from strategies.model_average import moved_average
from strategies.validation import RoundReport
from tasks.client_data import place_of_validation
from tasks.metrics import ClassReport
from tasks.protocol import Arrays, Mode
from tasks.settings import Settings
from tasks.validation_split import Place


@dataclass
class RunState:
    """Where a run stands; callbacks read it.

    ``arrays`` are the whole model, ``frozen`` names those of them that stay as they are and do not travel. ``extras``
    is what clients are sent beside it in training: further networks, and named arrays of the method. ``trained`` is the
    model that clients train next, of which ``arrays`` are the moving average over ``averaged_rounds`` rounds.

    ``saved_round`` is the round of the last checkpoint, ``checkpoint_round`` the earliest that the run may have to go
    back to: clients keep their states from then on. ``rounds_again`` counts rounds that are done a second time
    after clients had got their models: a checkpoint was damaged, or the run ended between evaluation and checkpoint.
    ``classes`` is what the evaluation of this round counted of each class, None if there was none.
    ``measured`` are the measures that each client took of this round's model on its own examples, as far as it did.
    ``best_round`` is chosen on validation data alone; ``validation`` tells who has some, and without there is none.
    ``best_loss`` is the loss there in that round, as far as sites measure it.
    """

    settings: Settings
    directory: RunDirectory
    registration: Registration
    strategy: UpdateStrategy[Any]
    arrays: Arrays
    mode: Mode
    frozen: frozenset[str] = frozenset()
    extras: Arrays = field(default_factory=dict)
    trained: Arrays = field(init=False)
    averaged_rounds: int = 0
    server_round: int = 0
    skipped_in_a_row: int = 0
    best_value: float | None = None
    best_loss: float = 0.0
    best_round: int | None = None
    evaluations_since_best: int = 0
    saved_round: int = 0
    checkpoint_round: int = 0
    rounds_again: int = 0
    resumed: bool = False
    report: RoundReport = field(default_factory=RoundReport)
    classes: ClassReport | None = None
    measured: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trained = self.arrays

    def take(self, arrays: Arrays) -> None:
        """Take what a round has made of the arrays that travel: the model to train next, and part of the average."""
        self.trained = self.trained | arrays
        self.averaged_rounds += 1
        share = self.settings.strategy.ema
        self.arrays = self.arrays | moved_average(self.arrays, arrays, share, self.averaged_rounds)

    @property
    def validation(self) -> Place:
        """Who holds validation data out: the server, the sites, or nobody."""
        return place_of_validation(self.settings, self.mode)

    @property
    def sent(self) -> Arrays:
        """The arrays that travel: all of the model but what is frozen."""
        return self._travelling(self.arrays)

    @property
    def newest(self) -> Arrays:
        """The arrays of the model to train next that travel."""
        return self._travelling(self.trained)

    @property
    def sent_in_training(self) -> Arrays:
        """The arrays that travel in training: those of the model to train, and what goes beside it."""
        return self.newest | self.extras

    def _travelling(self, arrays: Arrays) -> Arrays:
        return {name: array for name, array in arrays.items() if name not in self.frozen}

    @property
    def inner_strategy(self) -> Strategy:
        """The strategy that aggregates, without the adapter around it."""
        return self.strategy.inner if isinstance(self.strategy, FlowerStrategyAdapter) else self.strategy
