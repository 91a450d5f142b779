"""The three stages of FedCorr (Xu, Chen, Quek, Chong, CVPR 2022) as rounds, counted from 1."""

from dataclasses import dataclass


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
