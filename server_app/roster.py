"""Who takes part: every client says which one it is and how many examples it has, before the first round."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from logging import WARNING

from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from client_app.fingerprint import BITS
from client_app.site import UNNUMBERED
from server_app.grid import MALFORMED, has_expired, poll_seconds, push
from server_app.metering import ALLOWANCE
from server_app.pulling import Inbox, is_simulation
from strategies.updates import MOST_EXAMPLES, one_line
from tasks.envelope import RECORD, Envelope
from tasks.settings import FederationSettings


class FederationError(RuntimeError):
    """The federation cannot do what the run needs; the message says what to change."""


@dataclass(frozen=True)
class Client:
    """One participant. ``noise_rate`` and ``classes`` are known in a simulation only.

    ``fingerprint`` is equal where the data is; only sites with data of their own have one.
    """

    client: int
    node: int
    examples: int
    noise_rate: float | None = None
    classes: tuple[int, ...] | None = None
    fingerprint: int | None = None


@dataclass(frozen=True)
class Roster:
    """All participants, sorted by client id."""

    clients: tuple[Client, ...]

    def nodes(self) -> dict[int, int]:
        """Return the node id of each client id."""
        return {entry.client: entry.node for entry in self.clients}

    def examples(self) -> dict[int, int]:
        """Return the example count of each client id."""
        return {entry.client: entry.examples for entry in self.clients}

    def same_data(self) -> list[tuple[int, ...]]:
        """Return the client ids of each group of sites that have exactly the same data."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for entry in self.clients:
            if entry.fingerprint is not None:
                groups[entry.fingerprint].append(entry.client)
        return [tuple(group) for group in groups.values() if len(group) > 1]


def call_roll(grid: Grid, options: FederationSettings, envelope: Envelope, simulated: bool = False) -> Roster:
    """Wait for the clients and ask each for its identity; only ``simulated`` ones are believed to know the truth.

    Raises
    ------
    FederationError
        If the number of nodes is not ``num-clients``, too few answer, or two claim the same identity.
    """
    nodes = _wait_for_nodes(grid, options)
    content = RecordDict({RECORD: ConfigRecord(replace(envelope, client=-1).record())})
    deadline = time.monotonic() + options.round_timeout  # taken first: the messages, made now, live at least until then
    messages = [Message(content, node, "query.identity", ttl=options.round_timeout) for node in nodes]
    replies = _ask(grid, messages, deadline)
    found: dict[int, Client] = {}
    problems = [f"node {node}: no answer in {options.round_timeout:g} s" for node in set(nodes) - replies.keys()]
    for node, reply in replies.items():
        try:
            entry = _read(node, reply, nodes.index(node), options.num_clients, simulated)
        except (ValueError, OverflowError) as problem:
            problems.append(f"node {node}: {one_line(str(problem))}")
            continue
        if entry.client in found:
            raise FederationError(
                f"nodes {found[entry.client].node} and {node} both say that they are client {entry.client}: "
                "give every node its own partition-id in its --node-config"
            )
        found[entry.client] = entry
    return _check(found, problems, options)


def _check(found: dict[int, Client], problems: list[str], options: FederationSettings) -> Roster:
    if len(found) < options.min_replies:
        reasons = "\n".join(f"  - {problem}" for problem in sorted(problems)[:5])
        raise FederationError(
            f"{len(found)} of {options.num_clients} clients are ready, "
            f"federation.min-replies = {options.min_replies} are needed:\n{reasons}"
        )
    for problem in problems:
        log(WARNING, "Left out: %s", problem)
    roster = Roster(tuple(found[client] for client in sorted(found)))
    for group in roster.same_data():
        log(
            WARNING,
            "Clients %s have exactly the same data, and each counts as a site of its own: is one data-path given to "
            "several nodes, or one site connected more than once?",
            ", ".join(map(str, group)),
        )
    return roster


def _wait_for_nodes(grid: Grid, options: FederationSettings) -> list[int]:
    simulated = is_simulation(grid)
    deadline = time.monotonic() + (5.0 if simulated else options.wait_for_clients)
    while len(nodes := sorted(grid.get_node_ids())) != options.num_clients and time.monotonic() < deadline:
        time.sleep(poll_seconds(grid))
    if len(nodes) != options.num_clients:
        remedy = (
            f'start it with --federation-config "num-supernodes={options.num_clients}", or use winnow run'
            if simulated
            else "connect the missing nodes, or set federation.num-clients to the number of nodes"
        )
        raise FederationError(
            f"federation.num-clients = {options.num_clients}, but {len(nodes)} nodes are connected: {remedy}"
        )
    return nodes


def _ask(grid: Grid, messages: list[Message], deadline: float) -> dict[int, Message]:
    """Return the replies by node id, whoever the SuperLink names as the sender of an error."""
    push(grid, messages)
    waiting = {message.metadata.message_id: message for message in messages}
    replies: dict[int, Message] = {}
    inbox = Inbox(grid)
    while waiting:
        incoming, refused = inbox.look(dict.fromkeys(waiting, ALLOWANCE), deadline)
        errors = [Message(Error(MALFORMED, why), reply_to=waiting[name]) for name, why in refused.items()]
        _collect([reply for reply in [*incoming, *errors] if not has_expired(reply, deadline)], waiting, replies)
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(poll_seconds(grid, len(waiting)))
    return replies


def _collect(incoming: Iterable[Message], waiting: dict[str, Message], replies: dict[int, Message]) -> None:
    for reply in incoming:
        message = waiting.pop(reply.metadata.reply_to_message_id, None)
        if message is not None:
            replies[message.metadata.dst_node_id] = reply


def _read(node: int, reply: Message, place: int, num_clients: int, simulated: bool) -> Client:
    """Check an identity; ``place`` becomes the number of a node that has none: its place among all, by their ids."""
    if reply.has_error():
        raise ValueError(reply.error.reason)
    metrics = reply.content.metric_records.get("metrics", MetricRecord())
    client, examples = metrics.get("client"), metrics.get("num-examples")
    client = place if client == UNNUMBERED else client
    if not isinstance(client, int) or not 0 <= client < num_clients:
        raise ValueError(f"its partition-id must be 0 to {num_clients - 1}, got {client!r}")
    if not isinstance(examples, int) or not 1 <= examples <= MOST_EXAMPLES:
        raise ValueError(f"its example count must be a positive whole number, got {examples!r}")
    rate, counts = _truth(metrics, examples) if simulated else (None, None)
    mark = metrics.get("data-fingerprint")
    if mark is not None and not (isinstance(mark, int) and 0 <= mark < 2**BITS):
        raise ValueError(f"its data-fingerprint must be a whole number of {BITS} bits, got {mark!r}")
    return Client(client, node, examples, rate, counts, mark)


def _truth(metrics: MetricRecord, examples: int) -> tuple[float | None, tuple[int, ...] | None]:
    """Return the noise rate and the class counts that a simulated client tells; no real node knows them."""
    rate, classes = metrics.get("noise-rate"), metrics.get("class-counts")
    if rate is not None and not (isinstance(rate, float) and 0 <= rate <= 1):
        raise ValueError(f"its noise rate must be a number from 0 to 1, got {rate!r}")
    if classes is None:
        return rate, None
    counts = tuple(n for n in classes if isinstance(n, int)) if isinstance(classes, list) else ()
    if list(counts) != classes or min(counts, default=0) < 0 or sum(counts) != examples:
        raise ValueError("its class counts must be whole numbers that add up to its example count")
    return rate, counts
