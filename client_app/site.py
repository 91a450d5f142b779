"""A real node's own data, which only its owner can name, and an account of what leaves the node."""

from collections.abc import Mapping
from dataclasses import replace
from logging import ERROR, INFO, WARNING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.logger import log

from client_app import simulation
from tasks.base import DataError
from tasks.envelope import RECORD
from tasks.settings import Settings
from tasks.shares import Share, client_share, load_task, whole_share
from tasks.site import BadDataError

DATA_PATH = "data-path"
STATE_DIR = "state-dir"
NUMBER = "partition-id"
UNNUMBERED = -1
Node = Mapping[str, object]


class SiteDataError(ValueError):
    """The node's own data cannot be used; the message goes to the server and names nothing of the site's."""


def at_site(settings: Settings, node: Node) -> Settings:
    """Return the settings with the node's own folders, if it has data, in place of the run configuration's."""
    own = node.get(DATA_PATH)
    if not own:
        return settings
    return replace(settings, task=replace(settings.task, data_path=str(own), cache_path=str(node.get(STATE_DIR, ""))))


def brings_data(settings: Settings) -> bool:
    """Tell whether this is a real node whose data is its own, and not a share of a data set that all nodes have.

    Raises
    ------
    ValueError
        If its own data is asked for and the node does not say where that is.
    """
    return not simulation.is_simulated() and load_task(settings.task).brings_own_data


def node_share(settings: Settings, node: Node, client: int) -> Share:
    """Return the data of client number ``client``; ``settings`` are those :func:`at_site`.

    Raises
    ------
    SiteDataError
        If the node's own data cannot be used, or the node does not say where it is. What and where is logged here.
    """
    if not brings_data(settings):
        return client_share(settings, client)
    if not node.get(DATA_PATH):  # what the server names as data-path is a folder of its own machine
        raise SiteDataError("this task learns from each site's own data: start the node with 'data-path=/its/folder'")
    try:
        return whole_share(settings.task, client)
    except DataError as error:
        log(ERROR, "This node's data cannot be used: %s", error)
        told = error.summary if isinstance(error, BadDataError) else "the data of this node cannot be used"
    except OSError as error:
        log(ERROR, "This node's data cannot be read: %s", error)
        told = "the data of this node cannot be read"
    raise SiteDataError(f"{told}; what and where is in the log of this node")


def own_id(settings: Settings, node: Node, asked: int) -> int:
    """Return this client's number: its node's partition-id, which the operator or the simulation set, or as ``asked``.

    A node with data of its own needs no partition-id: it is ``UNNUMBERED`` until the server has counted the nodes.

    Raises
    ------
    ValueError
        If neither the node nor the message says which client this is, or there is no such client.
    """
    clients = settings.federation.num_clients
    client = int(str(node.get(NUMBER, asked)))
    if client == UNNUMBERED and NUMBER not in node and brings_data(settings):
        return client
    if not 0 <= client < clients:
        raise ValueError(f"start this node with --node-config 'partition-id=K', its own number, 0 to {clients - 1}")
    return client


def warn_of_left_out(settings: Settings) -> None:
    """Log on the node what of its own data is left out, with names and reasons."""
    for line in load_task(settings.task).remarks() if brings_data(settings) else []:
        log(WARNING, "%s", line)


def account(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Log on a real node what each reply holds; a mod, the outermost, so nothing is added after it."""
    asked, server_round = message.metadata.message_type, message.content.config_records[RECORD]["server_round"]
    reply = call_next(message, context)
    if not simulation.is_simulated() and reply.has_content():
        log(INFO, "To the server, round %s, %s: %s", server_round, asked, contents(reply.content))
    return reply


def contents(content: RecordDict) -> str:
    """Return everything in a reply in words: sizes of arrays and lists, single values as they are."""
    parts = [f"model ({_size(record.count_bytes())})" for record in content.array_records.values()]
    for record in content.metric_records.values():
        parts += [_named(name, value) for name, value in record.items()]
    for name, config in content.config_records.items():
        parts += [_named(f"{name}.{key}", value) for key, value in config.items() if (name, key) != (RECORD, "layout")]
    return ", ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _named(name: str, value: object) -> str:
    return f"{name} ({len(value)} values)" if isinstance(value, list | str | bytes) else f"{name} = {value}"
