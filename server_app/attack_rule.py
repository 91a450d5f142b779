"""The aggregator as attackers know it: the server's own rule, applied to a round that they imagine.

The packages of clients and of the server's strategies do not import each other. An attack in a simulation may know the
rule, so the server, which imports both, tells its simulated clients in each message how it is built.

Shapes: H honest clients and M hostile ones in a round, P parameters.
"""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from client_app.attacks import Rule, configured_attack
from strategies.aggregators import aggregate, build_aggregator
from tasks.protocol import Mode
from tasks.settings import Settings


def rule_path(settings: Settings, mode: Mode) -> str:
    """Return by which import path a simulated client builds the rule; empty where no attack knows it."""
    attack = configured_attack(settings.attack) if mode is Mode.SIMULATION else None
    if attack is None or not attack.knows_rule:
        return ""
    return f"{RuleInUse.__module__}:{RuleInUse.__qualname__}"


class RuleInUse(Rule):
    """The aggregator and the pre-aggregators of a run, on one round's honest updates and copies of a hostile one.

    Parameters
    ----------
    settings
        Those of the run.
    hostile
        Ids of the hostile clients.
    """

    def __init__(self, settings: Settings, hostile: Collection[int]) -> None:
        clients, chosen = settings.federation.num_clients, settings.strategy
        sampled = max(1, round(settings.federation.fraction_train * clients))
        others = sorted(set(range(clients)) - set(hostile))
        self.num_hostile = min(max(1, round(sampled * len(hostile) / clients)), sampled - 1)
        self.num_honest = sampled - self.num_hostile
        assert 0 < self.num_honest <= len(others), "an honest client, and no more than there are"
        self._clients = others[: self.num_honest] + sorted(hostile)[: self.num_hostile]
        self._aggregator = build_aggregator(chosen.aggregator, chosen.aggregator_args, chosen.pre_aggregators)

    def __call__(self, honest: Tensor, sent: Tensor) -> Tensor:
        """Return what the server makes (P,) of honest updates (H, P) and copies of one hostile update (P,)."""
        rows = [*honest.cpu().numpy(), *[sent.cpu().numpy()] * self.num_hostile]
        order = np.argsort(self._clients, kind="stable")
        result = aggregate(
            self._aggregator,
            [rows[i] for i in order],
            np.ones(len(rows)),
            clients=[self._clients[i] for i in order],
        )
        return torch.from_numpy(result.value).to(sent)
