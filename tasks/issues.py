"""Issues: what is wrong or odd about a run before it starts, and what its parts declare so that this can be judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tasks.plugins import is_own
from tasks.protocol import Mode
from tasks.settings import Settings

Level = Literal["error", "warning", "info"]
ERROR: Level = "error"
WARNING: Level = "warning"
INFO: Level = "info"


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong (``error``), odd but allowed (``warning``) or fine (``info``, of ``winnow doctor``).

    Attributes
    ----------
    key
        The setting or the part that it is about: "federation.min-replies", "strategy", "torch".
    text
        What is the matter, a sentence that can be read alone.
    remedy
        What to do about it, if ``text`` does not say it.
    variants
        The variants of the run that have it; empty = all of them.
    """

    level: Level
    key: str
    text: str
    remedy: str = ""
    variants: str = ""

    @property
    def line(self) -> str:
        """The issue as users read it.

        >>> Issue("error", "loss", "loss x needs images, and these are texts", "choose ce", variants="a").line
        'variant a: loss x needs images, and these are texts: choose ce'
        """
        joint = "; " if ": " in self.text else ": "
        line = self.text + (joint + self.remedy if self.remedy else "")
        return f"variant {self.variants}: {line}" if self.variants else line


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class Component:
    """A part of a run that a user can choose: what it declares, and what it finds wrong with the run that it is in.

    Attributes
    ----------
    one_label_each
        Whether it only works with one label per example, (n,), not with a label per pixel.
    gives_roles
        Strategy: whether it tells noisy clients from clean ones.
    reads_role
        Client method or aggregator: whether it treats noisy clients in another way than clean ones.
    asks_method
        Strategy: whether it asks questions that the client method must answer, and relies on the answers.
    answers_questions
        Client method: whether it answers questions outside of training.
    corrects_labels
        Client method: whether clients that are called noisy train on other labels than the given ones.
    networks
        Client method: how many networks of the run's model it trains; all of them travel both ways.
    exchanges_arrays
        Client method: whether it exchanges named arrays with the server.
    uses_neighbours, gives_neighbours
        Client method, strategy: whether it looks at its labels with models of other clients, and sends such models.
    sends_bad_teachers, uses_bad_teachers
        Client method, strategy: whether noisy clients send a second model of their given labels, and what it is for.
    combines_extras
        Strategy: whether it combines further networks and named arrays as well as the model.
    """

    one_label_each: ClassVar[bool] = False
    gives_roles: ClassVar[bool] = False
    reads_role: ClassVar[bool] = False
    asks_method: ClassVar[bool] = False
    answers_questions: ClassVar[bool] = False
    corrects_labels: ClassVar[bool] = False
    networks: ClassVar[int] = 1
    exchanges_arrays: ClassVar[bool] = False
    uses_neighbours: ClassVar[bool] = False
    gives_neighbours: ClassVar[bool] = False
    sends_bad_teachers: ClassVar[bool] = False
    uses_bad_teachers: ClassVar[bool] = False
    combines_extras: ClassVar[bool] = False

    def issues(self, context: "RunContext") -> list[Issue]:
        """Return what is wrong or odd about this part in such a run; called before any client starts, reads no data."""
        return []


class Unbuilt(Component):
    """Stands for a part that could not be built: it can do everything, so that nobody complains about it."""

    gives_roles: ClassVar[bool] = True
    reads_role: ClassVar[bool] = True
    asks_method: ClassVar[bool] = True
    answers_questions: ClassVar[bool] = True
    uses_neighbours: ClassVar[bool] = True
    gives_neighbours: ClassVar[bool] = True
    sends_bad_teachers: ClassVar[bool] = True
    uses_bad_teachers: ClassVar[bool] = True
    combines_extras: ClassVar[bool] = True


UNBUILT = Unbuilt()


@dataclass(frozen=True)
class RunContext:
    """What a part may know of the run that it is in.

    Attributes
    ----------
    sampled
        Number of clients that train in a round.
    mode
        Whether the clients are simulated or real nodes with data of their own.
    labels_pixels, has_smooth_inputs, has_strong_augmentation, has_test_examples
        Of the task; see :class:`tasks.base.Task`.
    validation
        Who holds out validation examples; see :func:`tasks.validation_split.validation_place`.
    method, strategy, aggregator
        The other parts, for what they declare.
    """

    settings: Settings
    sampled: int
    mode: Mode = Mode.SIMULATION
    labels_pixels: bool = False
    has_smooth_inputs: bool = True
    has_strong_augmentation: bool = True
    has_test_examples: bool = True
    validation: str = "server"
    method: Component = UNBUILT
    strategy: Component = UNBUILT
    aggregator: Component = UNBUILT

    @property
    def judges_roles(self) -> bool:
        """Whether it is known who gives and who reads roles: parts of the user's own need not declare it."""
        chosen = self.settings
        return not any(map(is_own, (chosen.method.name, chosen.strategy.name, chosen.strategy.aggregator)))

    def needs_one_label(self, part: str, name: str, remedy: str) -> Issue:
        """Return that a part needs one label per example, where the task has one per pixel."""
        text = f"{part} {name} needs one label per example, and {self.pixels}"
        return Issue(ERROR, part, text, remedy)

    @property
    def pixels(self) -> str:
        """That the task labels pixels, in words."""
        return f"the task {self.settings.task.name} has one per pixel"

    @property
    def words(self) -> str:
        """That the inputs of the task are no quantities, in words."""
        return f"the inputs of the task {self.settings.task.name} are word numbers"
