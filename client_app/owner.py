"""Whose a folder of label state is: two nodes in one state directory must not write over each other's."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from tasks.told import ToldError
from tasks.writing import private_folder

MARK = "owner"


class OwnerError(ToldError):
    """The folder is another node's; the message goes to the server and names no path of this machine."""


def claim(folder: Path, node: int) -> None:
    """Mark a folder as this node's, by a file that holds the node's id; the folder is made if it is not there.

    The id follows from the node's key. With another key a node is another one to this, until somebody who knows better
    removes the old mark. Of nodes that claim a folder at the same time, exactly one gets it.

    Raises
    ------
    OwnerError
        If it is another node's.
    """
    private_folder(folder)
    mark = folder / MARK
    if not mark.exists():
        _make(mark, node)
    owner = mark.read_text()
    if owner != str(node):
        raise OwnerError(
            f"nodes {node} and {owner} have the same state directory; give each a state-dir or a partition-id of its "
            f"own. If they are one node with a new key, remove {folder.parent.name}/{folder.name}/{MARK} there"
        )


def _make(mark: Path, node: int) -> None:
    """Make the mark with its content in one step, unless somebody else was faster; a crash leaves none or all of it."""
    with NamedTemporaryFile("w", dir=mark.parent, prefix=f".{MARK}-") as file:
        file.write(str(node))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, mark)
