"""Whether the parts of a run can learn its task at all, and which settings the task leaves without effect."""

from client_app import losses
from client_app.attacks import configured_attack
from client_app.attacks.base import DataAttack
from client_app.methods import METHODS
from server_app.strategy import build_strategy
from strategies.fedcorr import FedCorr
from strategies.noise_partition import NoisePartition
from tasks.base import Task
from tasks.config import DEFAULTS, to_flat
from tasks.settings import Settings
from tasks.shares import load_task

_REMEDY = (
    ": name a task.data-path with test data, or let the clients measure on their own labels, "
    "federation.fraction-evaluate = 1.0"
)
SIMULATED = ("partition.name", "partition.args", "noise.name", "noise.args", "noise.law", "noise.law-args")


def fit_problems(settings: Settings) -> list[str]:
    """Return why method, loss, strategy, attack or early stopping cannot work with the task; they can all be built."""
    task = load_task(settings.task)
    problems = _pixel_problems(settings) if task.labels_pixels else []
    problems += [] if task.has_smooth_inputs else _word_problems(settings, task)
    if settings.run.early_stopping and not task.has_test_examples():
        problems.append(
            f"run.early-stopping = {settings.run.early_stopping}: there is no clean test data to stop by; set it to 0, "
            "or let task.data-path name a folder that has test data"
        )
    return problems


def fit_remarks(settings: Settings, simulated: bool) -> list[str]:
    """Return what is odd but allowed about the task: data left out, no test data, settings without effect."""
    task, flat = load_task(settings.task), to_flat(settings)
    lines: list[str] = []
    if not task.has_test_examples():
        measured = settings.federation.fraction_evaluate > 0
        lines.append(
            "there is no clean test data, so the server does not evaluate"
            + (", only the clients do, on their own labels" if measured else _REMEDY)
        )
    if task.labels_pixels and settings.audit.enabled:
        lines.append("audit.enabled has no effect: the label audit takes one label per example, not per pixel")
    if simulated or not task.brings_own_data:
        return lines + task.remarks()
    changed = [name for name in SIMULATED if flat[name] != DEFAULTS[name] and flat["noise.name"] != "none"]
    return lines + [f"{name} has no effect: real nodes use their own data as it is" for name in changed]


def _pixel_problems(settings: Settings) -> list[str]:
    one, task = "one label per example", f"the task {settings.task.name} has one per pixel"
    problems = []
    if METHODS.build(settings.method.name, settings.method.args).one_label_each:
        problems.append(f"method {settings.method.name} needs {one}, and {task}: choose sgd or fedprox")
    if isinstance(build_strategy(settings), NoisePartition | FedCorr):
        problems.append(f"strategy {settings.strategy.name} needs {one}, and {task}: choose robust")
    if isinstance(configured_attack(settings.attack), DataAttack):
        problems.append(f"attack {settings.attack.name} changes {one}, and {task}: choose one that changes updates")
    return problems


def _word_problems(settings: Settings, task: Task) -> list[str]:
    why = f"the inputs of the task {settings.task.name} are word numbers"
    loss, problems = settings.loss, []
    if METHODS.build(settings.method.name, settings.method.args).mixes_inputs:
        problems.append(f"method {settings.method.name} mixes inputs, and {why}: choose another method")
    if losses.build(loss.name, task.num_classes, loss.args, loss.preset, [1] * task.num_classes).needs_inputs:
        problems.append(f"loss {loss.name} differentiates by inputs, and {why}: choose another loss")
    return problems
