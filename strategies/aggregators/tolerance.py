"""How many updates a rule or a step needs, and how many of them may be hostile."""

import re
from dataclasses import dataclass
from typing import ClassVar


class Counted:
    """Something that needs a least number of updates: a rule, or a step before it."""

    @property
    def name(self) -> str:
        """Name in the configuration: that of the class in small letters."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    @property
    def minimum(self) -> int:
        """Fewest updates that can be combined."""
        return 1

    def problem(self, num_updates: int, fact: str = "there are {}") -> str:
        """Return why so many updates are too few, or an empty string; ``fact`` says where the number comes from."""
        if num_updates >= self.minimum:
            return ""
        return f"{self} needs the updates of at least {self.minimum} clients, {fact.format(num_updates)}"

    def remark(self, num_updates: int) -> str:
        """Return what is odd but allowed about so many updates, or an empty string."""
        return ""

    def __str__(self) -> str:
        """Return the name as users write it, with the number of hostile updates if there is one."""
        hostile = getattr(self, "f", None)
        return self.name if hostile is None else f"{self.name} with f = {hostile}"


@dataclass(frozen=True)
class Tolerant(Counted):
    """Part of a rule or step that has to know how many of the updates may be hostile.

    Parameters
    ----------
    f
        Number of hostile updates to withstand. Left out, it is the largest number that the round's updates allow.
    """

    f: int | None = None
    per_hostile: ClassVar[int] = 2
    beside: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.f is not None and self.f < 0:
            raise ValueError(f"f = {self.f}: the number of hostile updates must be at least 0")

    @property
    def minimum(self) -> int:
        """Fewest updates among which ``f`` hostile ones can be withstood."""
        return self.per_hostile * (self.f or 0) + self.beside

    def hostile(self, num_updates: int) -> int:
        """Return the number of hostile updates to withstand among so many."""
        return (num_updates - self.beside) // self.per_hostile if self.f is None else self.f

    def remark(self, num_updates: int) -> str:
        """Return that no hostile update is withstood although f was left open, or an empty string."""
        idle = self.f is None and self.hostile(num_updates) == 0
        return f"{self} withstands no hostile update: the largest f for {num_updates} updates is 0" if idle else ""
