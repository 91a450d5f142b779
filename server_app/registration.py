"""Registration of clients: each says which one it is and how many examples it has, before the first round."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from logging import WARNING

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from client_app.node import FINGERPRINT_BITS, LONGEST_SITE_NAME, SHARE_RESULTS, SITE_NAME, UNNUMBERED
from server_app.transport.client_grid import NodeGrid, poll_seconds
from strategies.query import query
from strategies.validation import MOST_EXAMPLES
from tasks.protocol import RECORD, MessageHeader, Mode
from tasks.settings import FederationSettings


class FederationError(RuntimeError):
    """The federation cannot do what the run needs; the message says what to change."""


@dataclass(frozen=True)
class Client:
    """One participant. ``noise_rate`` and ``classes`` are known in a simulation only.

    ``fingerprint`` is equal where the data is; only sites with data of their own have one. ``name`` is what a site
    wants to be called, empty for none, and ``shares_results`` whether its own measures may be recorded.
    """

    client: int
    node: int
    examples: int
    noise_rate: float | None = None
    classes: tuple[int, ...] | None = None
    fingerprint: int | None = None
    name: str = ""
    shares_results: bool = False


@dataclass(frozen=True)
class Registration:
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


def register_clients(grid: Grid, options: FederationSettings, header: MessageHeader, mode: Mode) -> Registration:
    """Wait for the clients and ask each for its identity; only simulated ones are believed to know the truth.

    Raises
    ------
    FederationError
        If the number of nodes is not ``num-clients``, too few answer, or two claim the same identity.
    """
    nodes = _wait_for_nodes(grid, options, mode)

    def read(node: int, metrics: MetricRecord) -> Client:
        return _read(node, metrics, nodes.index(node), options.num_clients, mode)

    answers = query(
        NodeGrid(grid, mode),
        nodes,
        "query.identity",
        RecordDict({RECORD: ConfigRecord(replace(header, client=-1).record())}),
        read,
        timeout=options.round_timeout,
        silence=f"no answer in {options.round_timeout:g} s",
        failure="{reason}",
    )
    problems = [f"node {node}: {problem}" for node, problem in answers.problems.items()]
    return _check(_by_client(answers.found.values()), problems, options)


def _by_client(entries: Iterable[Client]) -> dict[int, Client]:
    found: dict[int, Client] = {}
    for entry in entries:
        if entry.client in found:
            raise FederationError(
                f"nodes {found[entry.client].node} and {entry.node} both say that they are client {entry.client}: "
                "give every node its own partition-id in its --node-config"
            )
        found[entry.client] = entry
    return found


def _check(found: dict[int, Client], problems: list[str], options: FederationSettings) -> Registration:
    if len(found) < options.min_replies:
        reasons = "\n".join(f"  - {problem}" for problem in sorted(problems)[:5])
        raise FederationError(
            f"{len(found)} of {options.num_clients} clients are ready, "
            f"federation.min-replies = {options.min_replies} are needed:\n{reasons}"
        )
    for problem in problems:
        log(WARNING, "Left out: %s", problem)
    registration = Registration(tuple(found[client] for client in sorted(found)))
    for group in registration.same_data():
        log(
            WARNING,
            "Clients %s have exactly the same data, and each counts as a site of its own: is one data-path given to "
            "several nodes, or one site connected more than once?",
            ", ".join(map(str, group)),
        )
    return registration


def _wait_for_nodes(grid: Grid, options: FederationSettings, mode: Mode) -> list[int]:
    simulated = mode is Mode.SIMULATION
    deadline = time.monotonic() + (5.0 if simulated else options.wait_for_clients)
    while len(nodes := sorted(grid.get_node_ids())) != options.num_clients and time.monotonic() < deadline:
        time.sleep(poll_seconds(mode))
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


def _read(node: int, metrics: MetricRecord, place: int, num_clients: int, mode: Mode) -> Client:
    """Check an identity; ``place`` becomes the number of a node that has none: its place among all, by their ids."""
    client, examples = metrics.get("client"), metrics.get("num-examples")
    client = place if client == UNNUMBERED else client
    if not isinstance(client, int) or not 0 <= client < num_clients:
        raise ValueError(f"its partition-id must be 0 to {num_clients - 1}, got {client!r}")
    if not isinstance(examples, int) or not 1 <= examples <= MOST_EXAMPLES:
        raise ValueError(f"its example count must be a positive whole number, got {examples!r}")
    rate, counts = _truth(metrics, examples) if mode is Mode.SIMULATION else (None, None)
    mark = metrics.get("data-fingerprint")
    if mark is not None and not (isinstance(mark, int) and 0 <= mark < 2**FINGERPRINT_BITS):
        raise ValueError(f"its data-fingerprint must be a whole number of {FINGERPRINT_BITS} bits, got {mark!r}")
    shares = metrics.get(SHARE_RESULTS) == 1
    return Client(client, node, examples, rate, counts, mark, _site_name(metrics.get(SITE_NAME)), shares)


def _site_name(given: object) -> str:
    """Return a site's name as text that is safe to print; empty if it gives none."""
    if given is None:
        return ""
    try:
        name = bytes(given).decode() if isinstance(given, list) else None
    except (TypeError, ValueError):  # numbers that are no bytes, or bytes that are no UTF-8
        name = None
    if name is None or not (name.isprintable() and 0 < len(name) <= LONGEST_SITE_NAME):
        raise ValueError(f"its {SITE_NAME} must be up to {LONGEST_SITE_NAME} printable characters in UTF-8")
    return name


def _truth(metrics: MetricRecord, examples: int) -> tuple[float | None, tuple[int, ...] | None]:
    """Return the noise rate and the class counts that a simulated client states; no real node knows them."""
    rate, classes = metrics.get("noise-rate"), metrics.get("class-counts")
    if rate is not None and not (isinstance(rate, float) and 0 <= rate <= 1):
        raise ValueError(f"its noise rate must be a number from 0 to 1, got {rate!r}")
    if classes is None:
        return rate, None
    counts = tuple(n for n in classes if isinstance(n, int)) if isinstance(classes, list) else ()
    if list(counts) != classes or min(counts, default=0) < 0 or sum(counts) != examples:
        raise ValueError("its class counts must be whole numbers that add up to its example count")
    return rate, counts
