"""Node that a ClientApp runs on: its mode, its own data, its number and its state directory.

A real node's operator alone says where it reads and writes; nothing that the server sends does.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from logging import ERROR, WARNING
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.logger import log

from client_app.trainer_link import idle_seconds
from tasks.base import ClientData, DataError
from tasks.client_data import ClientDataset, client_dataset, data_root, load_task, site_dataset
from tasks.files import private_folder, user_path
from tasks.fresh_model import model_digest
from tasks.own_data import BadDataError
from tasks.protocol import Mode, PublicError
from tasks.settings import Settings

DATA_PATH = "data-path"
STATE_DIR = "state-dir"
WEIGHTS_PATH = "weights-path"
PARTITION_ID = "partition-id"
SITE_NAME = "site-name"
SHARE_RESULTS = "share-results"
LONGEST_SITE_NAME = 60
UNNUMBERED = -1
LOCK_FILE = "owner"
"""File in a state directory that holds the id of the node that it belongs to."""
FINGERPRINT_BITS = 48
"""A thousand nodes with different data have a thousand different numbers but for a chance of one in 500 million."""

NodeConfig = Mapping[str, object]
_SIMULATED = Event()
_MODE: ContextVar[Mode] = ContextVar("mode", default=Mode.DEPLOYMENT)  # the stricter one where nobody has asked


class NodeError(PublicError):
    """The node does not do what it is asked, or lacks a number; the message goes to the server."""


class OwnDataError(PublicError):
    """The node's own data cannot be used; the message goes to the server and names nothing of the site's."""


class EncoderMismatchError(PublicError):
    """The node's encoder is not the coordinator's; the message goes to the server."""


class FrozenMismatchError(PublicError):
    """The frozen parts of the node's model are not the coordinator's; the message goes to the server."""


class StateDirError(PublicError):
    """The folder is another node's; the message goes to the server and names no path of this machine."""


def simulate_here() -> None:
    """Make this process one of simulated clients; the engine does so in the workers that it has started."""
    _SIMULATED.set()


def detect_mode() -> Mode:
    """Find out whether this process is a worker of an engine, ours or Ray, so that it shares the server's file system.

    Only :func:`with_mode` asks; all others call :func:`current_mode`.
    """
    if _SIMULATED.is_set():
        return Mode.SIMULATION
    ray = sys.modules.get("ray")
    return Mode.SIMULATION if ray is not None and bool(ray.is_initialized()) else Mode.DEPLOYMENT


def with_mode(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Set the mode for the mods and the session inside; a mod, and nothing in the message decides it."""
    before = _MODE.set(detect_mode())
    try:
        return call_next(message, context)
    finally:
        _MODE.reset(before)


def current_mode() -> Mode:
    """Return the mode in which the present message is answered."""
    return _MODE.get()


def node_settings(settings: Settings, node: NodeConfig, mode: Mode) -> Settings:
    """Return the settings with the node's own folders in place of the run configuration's.

    A real node reads and writes only where its operator says. Without a data folder of its own it may read what lies
    in the data folder of its environment, which the server names by its path.

    Raises
    ------
    OwnDataError
        If the server names a folder elsewhere.
    NodeError
        If what the operator has set is no path.
    """
    own, task = own_folder(node, DATA_PATH), settings.task
    if own:
        task = replace(task, data_path=own, cache_path=own_folder(node, STATE_DIR))
    elif mode is Mode.DEPLOYMENT:
        task = replace(task, data_path=_allowed_path(task.data_path), cache_path=own_folder(node, STATE_DIR))
    if mode is Mode.DEPLOYMENT:
        task = replace(task, weights_path=own_folder(node, WEIGHTS_PATH))
    return replace(settings, task=task)


def check_trainer_idle(node: NodeConfig) -> None:
    """Raise NodeError if the operator has set anything but a time for which the node's trainer waits for work."""
    try:
        idle_seconds(node)
    except ValueError as error:
        raise NodeError(f"node-config: {error}") from error


def site_facts(node: NodeConfig) -> dict[str, int | list[int]]:
    """Return what the operator lets be known of the site: its name, as UTF-8, and that its results may be kept.

    Nothing of both unless the operator has set it.

    Raises
    ------
    NodeError
        If what is set is no such name, or neither true nor false.
    """
    facts: dict[str, int | list[int]] = {}
    name, shares = node.get(SITE_NAME, ""), node.get(SHARE_RESULTS, False)
    if not isinstance(name, str) or not (name.isprintable() and len(name) <= LONGEST_SITE_NAME):
        limits = f"a text of up to {LONGEST_SITE_NAME} printable characters"
        raise NodeError(f"node-config: {SITE_NAME} must be {limits}, such as {SITE_NAME}='North clinic'")
    if not isinstance(shares, bool):
        raise NodeError(f"node-config: {SHARE_RESULTS} must be true or false, got {shares!r:.40}")
    if name.strip():
        facts[SITE_NAME] = list(name.strip().encode())
    if shares:
        facts[SHARE_RESULTS] = 1
    return facts


def own_folder(node: NodeConfig, key: str) -> str:
    """Return a folder that the node's operator has set, with ``~`` as the home folder; an empty text if none is set.

    Raises
    ------
    NodeError
        If it is no path. What and why is logged here.
    """
    text = str(node.get(key, ""))
    try:
        return user_path(text)
    except ValueError as error:
        log(ERROR, "node-config, %s = %r: %s", key, text, error)
    raise NodeError(f"the {key} of this node cannot be used; why is in the log of this node")


def _allowed_path(path: str) -> str:
    """Return a path that the server names, if it lies in this node's data folder, links followed."""
    if not path or ("\0" not in path and Path(path).resolve().is_relative_to(data_root("").resolve())):
        return path
    raise OwnDataError(
        f"task.data-path = {path!r}: a node reads only where its operator says; start the node with "
        "'data-path=/its/folder', or with $WINNOW_DATA naming a folder around this one"
    )


def brings_data(settings: Settings, mode: Mode) -> bool:
    """Tell whether this is a real node whose data is its own, and not a share of a data set that all nodes have.

    Raises
    ------
    ValueError
        If its own data is asked for and the node does not say where that is.
    """
    return mode is Mode.DEPLOYMENT and load_task(settings.task).brings_own_data


def node_dataset(settings: Settings, node: NodeConfig, client: int, mode: Mode) -> ClientDataset:
    """Return the data of client number ``client``; ``settings`` are those :func:`node_settings`.

    Raises
    ------
    OwnDataError
        If the node's own data cannot be used, or the node does not say where it is. What and where is logged here.
    """
    if not brings_data(settings, mode):
        return client_dataset(settings, client)
    if not node.get(DATA_PATH):  # what the server names as data-path is a folder of its own machine
        raise OwnDataError("this task learns from each site's own data: start the node with 'data-path=/its/folder'")
    try:
        return site_dataset(settings, client)
    except DataError as error:
        log(ERROR, "This node's data cannot be used: %s", error)
        public = error.summary if isinstance(error, BadDataError) else "the data of this node cannot be used"
    except OSError as error:
        log(ERROR, "This node's data cannot be read: %s", error)
        public = "the data of this node cannot be read"
    raise OwnDataError(f"{public}; what and where is in the log of this node")


def check_encoder(settings: Settings, expected: str) -> None:
    """Refuse to take part with another encoder than the coordinator's: the head would mean nothing here.

    Raises
    ------
    EncoderMismatchError
        If this node's cannot be used, or the digests differ. What is wrong with it is logged here.
    """
    if not settings.task.encoder:
        return
    try:
        own = load_task(settings.task).encoder_digest
    except ValueError as error:
        log(ERROR, "This node's encoder cannot be used: %s", error)
        text = f"the encoder {settings.task.encoder!r} cannot be used on this node; why is in its log"
        raise EncoderMismatchError(text) from error
    if own != expected:
        raise EncoderMismatchError(
            f"the encoder {settings.task.encoder!r} of this node has the digest {own[:12]}, the coordinator's has "
            f"{expected[:12]}: install the same version of its package, or copy the same file of weights"
        )


def check_frozen(settings: Settings, expected: str) -> None:
    """Refuse to take part with other frozen parts than the coordinator's: they do not travel, and what is sent does.

    Nothing is ``expected`` as long as the model cannot be made, because it depends on statistics of all sites.

    Raises
    ------
    FrozenMismatchError
        If this node cannot make them, or the digests differ. What is wrong is logged here.
    """
    if not settings.model.freeze or not expected:
        return
    file = f"the file {settings.model.init!r} of model.init" if settings.model.init else ""
    try:
        own = model_digest(settings)
    except ValueError as error:
        log(ERROR, "This node's model cannot be made: %s", error)
        text = f"a model with frozen parts cannot be made on this node{file and f' from {file}'}; why is in its log"
        raise FrozenMismatchError(text) from error
    if own != expected:
        remedy = f"copy {file}" if file else "install the same versions of torch and Winnow, which draw them"
        raise FrozenMismatchError(
            f"the frozen parts of this node's model have the digest {own[:12]}, the coordinator's have "
            f"{expected[:12]}: {remedy}"
        )


def warn_of_left_out(settings: Settings, mode: Mode) -> None:
    """Log on the node what of its own data is left out, with names and reasons."""
    for issue in load_task(settings.task).data_issues() if brings_data(settings, mode) else []:
        log(WARNING, "%s", issue.line)


def fingerprint(data: ClientData, run_name: str) -> int:
    """Return a number that follows from all examples and labels, in their order, and from the run's name.

    By it the server sees that two nodes of a run have the same data; it has ``FINGERPRINT_BITS`` bits.

    What it reveals: whether two clients of one run have exactly the same examples and labels, and to whom knows a
    whole data set, whether it is this client's. Nothing can be computed back from it, one changed pixel changes all of
    it, and numbers of different runs cannot be compared. The server chooses the run's name, though: whether a
    client's data is the same as in an earlier run of that name can be seen.
    """
    digest = hashlib.sha256(json.dumps([run_name, data.num_classes]).encode())
    for array in (data.features.cpu().numpy(), data.labels):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return int.from_bytes(digest.digest()[: FINGERPRINT_BITS // 8], "big")


def client_number(settings: Settings, node: NodeConfig, asked: int, mode: Mode) -> int:
    """Return this client's number: its node's partition-id, which the operator or the simulation set, or as ``asked``.

    A node with data of its own needs no partition-id: it is ``UNNUMBERED`` until the server has counted the nodes.

    Raises
    ------
    NodeError
        If neither the node nor the message says which client this is, or there is no such client.
    """
    clients = settings.federation.num_clients
    own = node.get(PARTITION_ID, asked)
    if own == UNNUMBERED and PARTITION_ID not in node and brings_data(settings, mode):
        return UNNUMBERED
    client = int(str(own)) if re.fullmatch(r"\d{1,9}", str(own), re.ASCII) else UNNUMBERED
    if not 0 <= client < clients:
        raise NodeError(f"start this node with --node-config 'partition-id=K', its own number, 0 to {clients - 1}")
    return client


def lock_state_dir(folder: Path, node: int) -> None:
    """Lock a folder for this node, by a file that holds the node's id; the folder is made if it is not there.

    Two nodes in one state directory would write over each other's files. The id follows from the node's key. With
    another key a node is another one to this, until somebody who knows better removes the old lock. Of nodes that lock
    a folder at the same time, exactly one gets it.

    Raises
    ------
    StateDirError
        If it is another node's.
    """
    private_folder(folder)
    lock = folder / LOCK_FILE
    if not lock.exists():
        _write_lock(lock, node)
    owner = lock.read_text()
    if owner != str(node):
        raise StateDirError(
            f"nodes {node} and {owner} have the same state directory; give each a state-dir or a partition-id of its "
            f"own. If they are one node with a new key, remove {folder.parent.name}/{folder.name}/{LOCK_FILE} there"
        )


def _write_lock(lock: Path, node: int) -> None:
    """Make the lock with its content in one step, unless somebody else was faster; a crash leaves none or all of it."""
    with NamedTemporaryFile("w", dir=lock.parent, prefix=f".{LOCK_FILE}-") as file:
        file.write(str(node))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, lock)
