"""Compatibility of the parts of a run with its task and with one another; each part reports its own issues."""

from dataclasses import dataclass, replace

from flwr.serverapp.strategy import Strategy

from client_app.attacks import attack_issues
from client_app.attacks.base import Attack
from client_app.losses import Objective
from client_app.methods import ClientMethod
from strategies.aggregators import Aggregator
from strategies.server_optimizers import ServerOptimizer
from tasks.base import Task
from tasks.config import defaults_of, no_effect, to_flat
from tasks.issues import WARNING, Component, Issue, RunContext
from tasks.noise.clients import NO_NOISE
from tasks.settings import Settings

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
