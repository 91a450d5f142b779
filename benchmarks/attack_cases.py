"""One run of the attack grid: what decides it, and whether it can be made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server_app.validation.config import check
from strategies.aggregators import AGGREGATORS, PRE_AGGREGATORS, build_aggregator
from tasks.config import Flat, flatten
from tasks.plugins import accepted_names, parse_args

TASKS: Mapping[str, Flat] = {
    "digits": {
        "task.name": "digits",
        "model.name": "mlp",
        "federation.num-clients": 20,
        "partition.args": "alpha = 1.0, min_size = 20",
        "train.epochs": 1,
        "train.batch-size": 32,
        "train.learning-rate": 0.2,
        "train.device": "cpu",
        "train.threads": 1,
    },
    "cifar-10": {
        "task.name": "cifar-10",
        "model.name": "cnn8",
        "federation.num-clients": 20,
        "partition.args": "alpha = 1.0, min_size = 100",
        "train.epochs": 2,
        "train.batch-size": 64,
        "train.learning-rate": 0.05,
        "train.precision": "bfloat16",
    },
}


@dataclass(frozen=True)
class Case:
    """All that decides the outcome of one run; ``settings`` are those of the kind of client, as inline TOML."""

    task: str = "digits"
    rounds: int = 30
    client: str = "ce"
    settings: str = 'loss.name = "ce"'
    attack: str = "none"
    rule: str = "mean"
    share: float = 0.2
    seed: int = 1

    @property
    def hostile(self) -> int:
        """Number of hostile clients; a rule that has to know how many there may be is told this number."""
        return round(self.share * int(self.flat()["federation.num-clients"]))

    def flat(self) -> Flat:
        """Return the run configuration without attack and rule."""
        base: Flat = {"seed": self.seed, "num-server-rounds": self.rounds, "noise.name": "none"}
        base["evaluate.validation"] = 0.0  # no round is chosen: all examples train
        return base | TASKS[self.task] | flatten(parse_args(self.settings))

    def configuration(self) -> Flat:
        """Return the whole run configuration."""
        name, args = named(self.attack)
        *steps, last = self.rule.split("+")
        rule, rule_args = named(last)
        attack: Flat = {} if name == "none" else {"attack.name": name, "attack.args": args, "attack.share": self.share}
        return (
            self.flat()
            | attack
            | {
                "strategy.aggregator": rule,
                "strategy.aggregator-args": rule_args or self._tolerance(AGGREGATORS.find(rule)),
                "strategy.pre-aggregators": ", ".join(
                    f"{s} = {{ {self._tolerance(PRE_AGGREGATORS.find(s))} }}" for s in steps
                ),
            }
        )

    def _tolerance(self, factory: Any) -> str:
        return f"f = {self.hostile}" if "f" in accepted_names(factory) else ""

    def __str__(self) -> str:
        return f"{self.client}, {self.attack}, {self.share:.0%} hostile, {self.rule}, seed {self.seed}"


def named(text: str) -> tuple[str, str]:
    """Return name and arguments of a choice such as ``alie: z = 1.5``; an import path has no space after its colon."""
    name, _, args = text.partition(": ")
    return name.strip(), args.strip()


def impossible(case: Case) -> str:
    """Return why rule or attack cannot be used with so many clients, or an empty string.

    Raises
    ------
    ConfigError
        If the configuration is wrong in another way.
    """
    flat = case.configuration()
    clients = int(flat["federation.num-clients"])
    keys = ("strategy.aggregator", "strategy.aggregator-args", "strategy.pre-aggregators")
    problem = build_aggregator(*(str(flat[key]) for key in keys)).problem(clients)
    return problem or _attack_problem(case)


def _attack_problem(case: Case) -> str:
    name, _ = named(case.attack)
    if name == "none":
        return ""
    try:
        check({**case.configuration(), "attack.name": name})
    except ValueError as error:
        return str(error)
    return ""
