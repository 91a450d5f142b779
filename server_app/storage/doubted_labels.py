"""Doubted labels of a simulation as pictures: ``doubted-labels.json`` of the run directory, for the report.

Of each there is the small picture, the given label, the suggested one and the true one. It is made of published data
sets only, and never on real nodes.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tasks.files import replace_file

DOUBTS = "doubted-labels.json"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Doubt:
    """One label that an audit doubts.

    Attributes
    ----------
    client
        Whose it is.
    name
        The example's name in the client's list.
    given, suggested, true
        Names of the classes; ``true`` is empty for an example from outside of the task, for which no label is right.
    suspicion
        How suspicious the label is by the list, in [0, 1].
    png
        The picture, a PNG file in base64.
    """

    client: int
    name: str
    given: str
    suggested: str
    true: str
    suspicion: float
    png: str

    def __post_init__(self) -> None:
        """Refuse what is no picture: it will be part of a page.

        Raises
        ------
        ValueError
            If that is so.
        """
        if not base64.b64decode(self.png, validate=True).startswith(PNG):
            raise ValueError(f"the picture of {self.name!r} is no PNG file")


def write_doubts(run_dir: Path, doubts: Sequence[Doubt]) -> None:
    """Write the doubted labels into a run directory."""
    content = {"doubted": [asdict(doubt) for doubt in doubts]}
    replace_file(run_dir / DOUBTS, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(errors="replace"))


def read_doubts(content: dict[str, Any]) -> tuple[Doubt, ...]:
    """Return what :func:`write_doubts` wrote; nothing of an empty file.

    Raises
    ------
    TypeError, ValueError
        If it is something else.
    """
    return tuple(_doubt(entry) for entry in content.get("doubted", []))


def _doubt(entry: dict[str, Any]) -> Doubt:
    found = Doubt(**entry)
    for field in fields(Doubt):
        value = getattr(found, field.name)
        if not isinstance(value, str if field.type is str else int | float):
            raise TypeError(f"{field.name} is {value!r}")
    return found
