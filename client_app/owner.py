"""Whose a folder of label state is: two nodes in one state directory must not write over each other's."""

from pathlib import Path

from tasks.told import ToldError
from tasks.writing import private_folder

MARK = "owner-"


class OwnerError(ToldError):
    """The folder is another node's; the message goes to the server and names no path of this machine."""


def claim(folder: Path, node: int) -> None:
    """Mark a folder as this node's, by an empty file named after the node's id; it is made if it is not there.

    The id follows from the node's key. With another key a node is another one to this, until somebody who knows better
    removes the old mark. Of two nodes that claim a folder at the same time, at most one gets it.

    Raises
    ------
    OwnerError
        If it is another node's.
    """
    private_folder(folder)
    own = folder / f"{MARK}{node}"
    is_new = not own.exists()
    own.touch()
    others = sorted(path.name for path in folder.glob(f"{MARK}*") if path != own)
    if not others:
        return
    if is_new:
        own.unlink()
    mark = f"{folder.parent.name}/{folder.name}/{others[0]}"
    raise OwnerError(
        f"nodes {node} and {others[0].removeprefix(MARK)} have the same state directory; give each a state-dir or a "
        f"partition-id of its own. If they are one node with a new key, remove {mark} there"
    )
