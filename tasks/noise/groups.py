"""Groups of clients that are treated alike, and the noise that differs from group to group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.noise.base import NOISES, LabelNoise, NoiseError


@dataclass(frozen=True)
class Group:
    """Consecutive clients ``first`` .. ``first + clients - 1`` and the choice made for them, with its arguments."""

    first: int
    clients: int
    choice: str
    args: Mapping[str, Any]


def read_groups(groups: Sequence[Mapping[str, Any]], kind: str, default: str = "") -> list[Group]:
    """Read tables such as ``{clients = 5, law = "uniform", max = 0.4}``, where ``kind`` is the key of the choice.

    Raises
    ------
    NoiseError
        If there is no group, or one lacks its number of clients or its choice.
    """
    example = f'groups = [{{clients = 5, {kind} = "..."}}, ...]'
    if isinstance(groups, str | Mapping) or not groups or not all(isinstance(table, Mapping) for table in groups):
        raise NoiseError(f"expected a list of tables, {example}, not {groups!r}")
    read: list[Group] = []
    first = 0
    for table in groups:
        clients, choice = table.get("clients"), table.get(kind, default)
        if type(clients) is not int or clients < 1:
            raise NoiseError(f"each group needs its number of clients, {example}, but one is {dict(table)!r}")
        if not choice:
            raise NoiseError(f"each group needs its {kind}, {example}, but one is {dict(table)!r}")
        args = {key: value for key, value in table.items() if key not in ("clients", kind)}
        read.append(Group(first, clients, choice, args))
        first += clients
    return read


@NOISES.register("mixed", "Jiang et al. (FNBench), 2025")
def mixed(
    groups: Sequence[Mapping[str, Any]],
    num_classes: int,
    rate: float,
    client: int,
    class_names: Sequence[str] = (),
    data_root: Path = Path(),
) -> LabelNoise:
    """Give each group of clients a noise of its own.

    ``groups = [{clients = 50, noise = "symmetric"}, {clients = 50, noise = "pair-flip", step = -1}]``: the first
    50 clients and the next 50. ``client`` is the number of the client that asks.

    Raises
    ------
    NoiseError
        If the groups do not reach ``client``, or cannot be read.
    PluginError
        If a group's noise is unknown or refuses its arguments.
    """
    read = read_groups(groups, "noise")
    for group in read:
        if group.first <= client < group.first + group.clients:
            return NOISES.build(
                group.choice,
                group.args,
                num_classes=num_classes,
                rate=rate,
                client=client,
                class_names=class_names,
                data_root=data_root,
            )
    total = sum(group.clients for group in read)
    raise NoiseError(f"the groups hold {total} clients, but there is a client {client}; name a group for it")
