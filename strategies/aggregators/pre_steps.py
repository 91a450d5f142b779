"""What comes before a rule: steps that replace the updates by mixtures of them, and compose with any rule.

A step sees the inner products of the points, not their values. So the inner products after it follow without another
pass over the data, and the mixtures are made block by block while the rule combines them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from strategies.aggregators.base import Combine, Rule
from strategies.aggregators.registry import AGGREGATORS
from strategies.aggregators.tolerance import Counted
from strategies.gram import Doubles
from strategies.points import Points
from tasks.plugin import PluginError, Registry


class PreStep(Counted, ABC):
    """A step before the rule.

    ``keeps_clients`` tells whether each point is still one client's update afterwards, only shorter. ``bounds`` tells
    whether no update, however large, can carry a mean of the mixtures far away; averaging alone does not.
    """

    keeps_clients: bool = False
    bounds: bool = False

    @abstractmethod
    def mix(self, gram: Doubles, prior: Doubles, generator: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the mixtures and their prior weights.

        Parameters
        ----------
        gram
            Inner products of the N points and, last, the global model, (N + 1, N + 1), to a common reference.
        prior
            Weights of the points, (N,): positive, sum 1.
        generator
            For what the step draws.

        Returns
        -------
        tuple
            Coefficients (M, N + 1) with rows that sum to 1, the last column for the global model; and prior (M,).
        """

    def remaining(self, num_updates: int) -> int:
        """Return how many points are left of so many."""
        return num_updates


class Chain(Rule):
    """Some steps, then a rule.

    Raises
    ------
    ValueError
        If the rule needs every client on its own and a step mixes them.
    """

    def __init__(self, steps: Sequence[PreStep], rule: Rule) -> None:
        self.steps = tuple(steps)
        self.rule = rule
        self.robust = rule.robust or any(step.bounds for step in steps)
        mixing = [str(step) for step in steps if not step.keeps_clients]
        if rule.needs_clients and mixing:
            raise ValueError(f"{rule} needs the update of every client on its own, but {', '.join(mixing)} mixes them")

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why a step or the rule gets too few points, or an empty string."""
        left = num_updates
        for step in self.steps:
            if problem := step.problem(left, fact):
                return problem
            if step.remaining(left) != left:
                fact = f"after {step} there are {{}}"
            left = step.remaining(left)
        return self.rule.problem(left, fact)

    def remark(self, num_updates: int) -> str:
        """Return the first remark of a step or the rule, or an empty string."""
        left = num_updates
        for step in self.steps:
            if remark := step.remark(left):
                return remark
            left = step.remaining(left)
        return self.rule.remark(left)

    def prepare(self, points: Points, prior: Doubles) -> tuple[Combine, Doubles | None]:
        """Return the rule's combination of the mixtures, and the weights of the updates in it."""
        generator = np.random.default_rng(points.seed)
        for step in self.steps:
            mixtures, prior = step.mix(points.gram, prior, generator)
            points = points.mixed(mixtures)
        combine, weights = self.rule.prepare(points, prior)
        assert points.mixtures is not None
        known = None if weights is None else weights @ points.mixtures[:, :-1]
        return lambda columns, block: combine(columns, points.values(block)), known

    def __str__(self) -> str:
        """Return the steps and the rule, in order."""
        return " + ".join(map(str, [*self.steps, self.rule]))


PRE_STEPS = Registry("pre-step", PreStep)


def build_rule(name: str, args: str = "", pre_steps: str = "") -> Rule:
    """Build a rule and the steps before it; these are inline TOML such as ``nnm = { f = 4 }, bucketing = {}``.

    Raises
    ------
    PluginError
        If a name is unknown, an argument does not fit, or rule and steps do not go together.
    """
    rule, steps = AGGREGATORS.build(name, args), build_pre_steps(pre_steps)
    try:
        return Chain(steps, rule) if steps else rule
    except ValueError as error:
        raise PluginError(str(error)) from error


def build_pre_steps(text: str) -> list[PreStep]:
    """Build the steps that inline TOML such as ``nnm = { f = 4 }, bucketing = {}`` names, in its order.

    Raises
    ------
    PluginError
        If a name is unknown, or an argument does not fit.
    """
    return list(PRE_STEPS.build_each(text).values())
