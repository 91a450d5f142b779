"""The three stages of FedCorr (Xu, Chen, Quek, Chong, CVPR 2022) as rounds, counted from 1."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.seeds import rng


@dataclass(frozen=True)
class Schedule:
    """Which round belongs to what: ``iterations`` passes over ``clients``, ``at_once`` a round, then fine-tuning."""

    iterations: int
    clients: int
    at_once: int
    finetune_rounds: int

    @property
    def steps(self) -> int:
        """Rounds of one iteration."""
        return -(-self.clients // self.at_once)

    @property
    def first_stage(self) -> int:
        """Rounds of the first stage."""
        return self.iterations * self.steps

    def stage(self, server_round: int) -> int:
        """Return the stage of a round, 1 to 3."""
        ends = (self.first_stage, self.first_stage + self.finetune_rounds)
        return 1 + sum(server_round > end for end in ends)

    def ends_iteration(self, server_round: int) -> bool:
        """Tell whether an iteration is complete after this round."""
        return 0 < server_round <= self.first_stage and server_round % self.steps == 0

    def ends_finetuning(self, server_round: int) -> bool:
        """Tell whether the second stage is complete after this round."""
        return self.finetune_rounds > 0 and server_round == self.first_stage + self.finetune_rounds

    def visited(self, server_round: int, members: Sequence[int], present: Collection[int], seed: int) -> list[int]:
        """Return who trains in a round of stage 1, in ascending order: in each iteration another order of ``members``.

        For a client that is not ``present`` the next one stands in.
        """
        iteration, step = divmod(server_round - 1, self.steps)
        start = step * self.at_once
        order = np.roll(rng(seed, "fedcorr", iteration).permutation(members), -start).tolist()
        size = min(self.at_once, len(order) - start)
        return sorted([client for client in order if client in present][:size])
