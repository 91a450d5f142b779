"""Compatibility of the parts of a run with its task and with one another; each part reports its own issues."""

from dataclasses import dataclass, replace

from flwr.serverapp.strategy import Strategy

from client_app.attacks import attack_issues
from client_app.attacks.base import Attack
from client_app.losses import Objective
from client_app.methods import ClientMethod
from client_app.private_accuracy import accuracy_issues
from strategies.aggregators import Aggregator
from strategies.server_optimizers import ServerOptimizer
from tasks.base import Task
from tasks.config import defaults_of, no_effect, to_flat
from tasks.issues import ERROR, WARNING, Component, Issue, RunContext
from tasks.noise.clients import NO_NOISE
from tasks.protocol import Mode
from tasks.settings import Settings
from tasks.validation_split import NOWHERE, SERVER, SITES, evaluating_share, validation_place

SIMULATED = ("partition.name", "partition.args", "noise.name", "noise.args", "noise.rates", "noise.rates-args")
OF_AGGREGATION = (
    "aggregator",
    "aggregator-args",
    "pre-aggregators",
    "server-optimizer",
    "server-optimizer-args",
    "weighting",
)


@dataclass
class Parts:
    """The parts of a run; None where one could not be built, or there is none."""

    task: Task | None = None
    loss: Objective | None = None
    method: ClientMethod | None = None
    strategy: Strategy | None = None
    aggregator: Aggregator | None = None
    server_optimizer: ServerOptimizer | None = None
    attack: Attack | None = None


class StockStrategy(Component):
    """Stands for a strategy that declares nothing: one of Flower's own, or a user's that derives from one."""

    def __init__(self, is_stock: bool) -> None:
        self.is_stock = is_stock

    def issues(self, context: RunContext) -> list[Issue]:
        """Return the settings of the aggregation that Flower's own strategies do not read."""
        why = "Flower's own strategies combine updates their own way"
        unread = [*(f"strategy.{key}" for key in OF_AGGREGATION), "federation.memory"]
        return no_effect(context.settings, dict.fromkeys(unread, why)) if self.is_stock else []


def component(strategy: Strategy) -> Component:
    """Return what a strategy declares, the one within an adapter or a privacy wrapper."""
    inner = getattr(strategy, "inner", strategy)
    return inner if isinstance(inner, Component) else StockStrategy(type(inner).__module__.startswith("flwr."))


def in_context(context: RunContext, parts: Parts) -> RunContext:
    """Return the context with what the parts declare; what could not be built is not judged."""
    if parts.strategy is not None:
        context = replace(context, strategy=component(parts.strategy))
    if parts.task is not None:
        task = parts.task
        context = replace(
            context,
            labels_pixels=task.labels_pixels,
            has_smooth_inputs=task.has_smooth_inputs,
            has_strong_augmentation=task.has_strong_augmentation,
            has_test_examples=task.has_test_examples(),
            validation=validation_place(context.settings, context.mode is Mode.DEPLOYMENT and task.brings_own_data),
        )
    return replace(context, method=parts.method or context.method, aggregator=parts.aggregator or context.aggregator)


def compatibility_issues(context: RunContext, parts: Parts) -> list[Issue]:
    """Return what the parts find wrong or odd about the run that they are in."""
    found = attack_issues(parts.attack, context) if parts.attack is not None and parts.task is not None else []
    strategy = component(parts.strategy) if parts.strategy is not None else None
    for part in (strategy, parts.method, parts.aggregator, parts.server_optimizer, parts.loss, parts.task):
        found += part.issues(context) if part is not None else []
    return found


def unused_on_nodes(settings: Settings) -> list[Issue]:
    """Return the settings of partition and noise that real nodes with data of their own leave without effect."""
    flat = to_flat(settings)
    defaults = defaults_of(flat)
    changed = [name for name in SIMULATED if flat[name] != defaults[name] and settings.noise.name != NO_NOISE]
    text = "has no effect: real nodes use their own data as it is"
    return [Issue(WARNING, name, f"{name} {text}") for name in changed]


def validation_issues(context: RunContext, sites_own_data: bool) -> list[Issue]:
    """Return what of the settings does not fit who holds out validation examples in such a run.

    ``sites_own_data`` tells whether the training examples are at real nodes alone.
    """
    settings, at = context.settings, context.settings.evaluate.validation_at
    found = _site_measures(settings) + accuracy_issues(context)
    if settings.run.monitor == SITES and not settings.evaluate.validation:
        text = "run.monitor = 'sites': the sites hold nothing out to choose by"
        found.append(Issue(ERROR, "run.monitor", text, "set evaluate.validation to a share such as 0.1"))
    if settings.run.monitor == SITES and at == SERVER:
        text = "run.monitor = 'sites': with evaluate.validation-at = 'server' the sites hold nothing out to choose by"
        found.append(Issue(ERROR, "run.monitor", text, "set evaluate.validation-at to auto"))
    return found + _place_issues(context, sites_own_data)


def _site_measures(settings: Settings) -> list[Issue]:
    """Return what is said in vain about measures at the sites where no site measures."""
    why = not evaluating_share(settings) and "no client evaluates on its own data (federation.fraction-evaluate = 0)"
    return no_effect(settings, {f"evaluate.{key}": why for key in ("combine", "report", "epsilon")})


def _place_issues(context: RunContext, sites_own_data: bool) -> list[Issue]:
    """Return what does not fit who holds examples out."""
    settings, at = context.settings, context.settings.evaluate.validation_at
    if context.validation == NOWHERE:
        return _no_validation(settings, sites_own_data)
    if context.validation == SERVER:
        text = "evaluate.validation-at = 'server': the server has no training examples, which are at the sites"
        remedy = "choose sites, or auto"
        return [Issue(ERROR, "evaluate.validation-at", text, remedy)] if sites_own_data and at == SERVER else []
    return _validation_at_sites(settings)


def _no_validation(settings: Settings, sites_own_data: bool) -> list[Issue]:
    """Return what is asked for that only validation examples can give."""
    run, asked, found = settings.run, settings.evaluate, list[Issue]()
    share = "" if asked.validation else "evaluate.validation to a share such as 0.1"
    measured = "federation.fraction-evaluate to 1.0" if asked.validation or sites_own_data else ""
    remedy = f"set {' and '.join(filter(None, (share, measured)))}"
    if asked.validation and asked.validation_at == SITES:
        text = "evaluate.validation-at = 'sites': nobody measures on what the sites would hold out"
        found.append(Issue(ERROR, "evaluate.validation-at", text, remedy))
    if run.early_stopping:
        text = f"run.early-stopping = {run.early_stopping}: no examples are held out to stop by"
        found.append(Issue(ERROR, "run.early-stopping", text, f"{remedy}, or run.early-stopping to 0"))
    why = "no examples are held out to choose the best model by"
    idle = {"run.monitor": why, "evaluate.validation-at": not asked.validation and why}
    idle["evaluate.validation"] = "the sites, which have the examples, are not asked to evaluate"
    return found + no_effect(settings, idle if asked.validation else {**idle, "evaluate.validation": False})


def _validation_at_sites(settings: Settings) -> list[Issue]:
    """Return what the sites do not measure, and that other sites in each round make rounds hard to compare."""
    run, fraction, found = settings.run, evaluating_share(settings), list[Issue]()
    if run.monitor in ("balanced-accuracy", "dice"):
        text = f"run.monitor = {run.monitor!r} is not measured at the sites, which hold out the validation examples"
        found.append(Issue(ERROR, "run.monitor", text, "choose accuracy, macro-f1, loss, or mean-iou of masks"))
    if fraction < 1:
        text = (
            f"federation.fraction-evaluate = {fraction:g}: every round is measured at other sites, so which is best is "
            "partly chance"
        )
        found.append(Issue(WARNING, "federation.fraction-evaluate", text, "1.0 asks all of them"))
    return found
