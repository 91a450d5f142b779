"""A load test: a federation with TLS and keys, more and more nodes, and what each round costs whom (Linux).

    python -m benchmarks.load --nodes 50 --rounds 3                           # Winnow, 50 SuperNodes
    python -m benchmarks.load --nodes 50 --app echo --megabytes 1 10          # an app without torch
    python -m benchmarks.load --nodes 50 200 500 --kind light --app echo      # many nodes in one process

SuperLink, its database, the ServerApp and their executor are always processes as in a deployment. Nodes are, by --kind,

- process: SuperNode and executor as in a deployment, 0.2 GB for both;
- forked: the same, started by a fork that shares imported modules (benchmarks/load_fork.py), the default;
- light: nodes for the SuperLink only (benchmarks/load_nodes.py), hundreds in a process.

Every round is a line of the CSV file and of the table; round 0 is the time before the run, in which nodes only poll.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.load_federation import APPS, KINDS, Case, LoadError, play
from benchmarks.load_meter import Sample, mean, peak, spent
from server_app.command.environment import SuperLinkError
from server_app.command.processes import StopRequested, stop_requests

MB = 1e6


@dataclass(frozen=True)
class Row:
    """One round: seconds, CPU seconds, MB of memory, and what the ServerApp measured of itself (``echo`` only).

    ``load`` is the machine's load average, ``failures`` are replies that light nodes could not deliver, ``empty_pulls``
    are questions for a reply that was not there, ``poll_ms`` is how long a light node waits to hear that there is
    nothing to do.
    """

    app: str
    kind: str
    nodes: int
    megabytes: float
    round: int
    load: float
    seconds: float
    replies: int = 0
    failures: float = 0.0
    push_s: float = 0.0
    pulls: float = 0.0
    pull_s: float = 0.0
    empty_pulls: float = 0.0
    empty_s: float = 0.0
    superlink_cpu: float = 0.0
    serverapp_cpu: float = 0.0
    superlink_mb: float = 0.0
    serverapp_mb: float = 0.0
    supernode_mb: float = 0.0
    executor_mb: float = 0.0
    clientapps_mb: float = 0.0
    all_pss_mb: float = 0.0
    database_mb: float = 0.0
    polls_a_second: float = 0.0
    poll_ms: float = 0.0


def rows(case: Case, folder: Path) -> Iterable[Row]:
    """Play a case and yield its rows."""
    lines, before, during = play(case, folder)
    yield row(case, {"round": 0, "seconds": case.idle}, before.during(0))
    for line in lines:
        if line["round"]:
            yield row(case, line, during.during(line["round"]))


def row(case: Case, line: dict[str, Any], samples: list[Sample]) -> Row:
    """Return the row of a round from the ServerApp's line and what was seen meanwhile."""
    told = {field.name: line[field.name] for field in fields(Row) if field.name in line and field.name != "nodes"}
    polls, seconds = (difference(samples, name) for name in ("polls", "poll_s"))
    return Row(
        **{**told, "app": case.app, "kind": case.kind, "nodes": case.nodes, "megabytes": case.megabytes},
        failures=difference(samples, "failures"),
        load=round(os.getloadavg()[0], 1),
        superlink_cpu=spent(samples, "superlink"),
        serverapp_cpu=spent(samples, "serverapp"),
        superlink_mb=peak(samples, "superlink") / MB,
        serverapp_mb=peak(samples, "serverapp") / MB,
        supernode_mb=mean(samples, "supernode") / MB,
        executor_mb=mean(samples, "executor") / MB,
        clientapps_mb=peak(samples, "clientapp") / MB,
        all_pss_mb=max((sum(sample.pss.values()) for sample in samples), default=0) / MB,
        database_mb=max((sample.database for sample in samples), default=0) / MB,
        polls_a_second=polls / line["seconds"] if line["seconds"] else 0.0,
        poll_ms=1000 * seconds / polls if polls else 0.0,
    )


def difference(samples: list[Sample], name: str) -> float:
    """Return by how much a total of the light nodes has grown."""
    return samples[-1].totals[name] - samples[0].totals[name] if samples else 0.0


def table(found: Iterable[Row]) -> str:
    """Return the rows as a Markdown table, without columns that say nothing."""
    shown = [{name: text(value) for name, value in asdict(each).items()} for each in found]
    names = [name for name in shown[0] if any(line[name] not in ("0", "") for line in shown)] if shown else []
    lines = [names, ["---"] * len(names), *([line[name] for name in names] for line in shown)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: object) -> str:
    """Return a value for the table.

    >>> text(12.3456), text(0.01234), text(1234.5), text(7)
    ('12.3', '0.0123', '1234', '7')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value == 0 or abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Play every case, add its rows to the file, and print all."""
    args = arguments(sys.argv[1:])
    found: list[Row] = []
    for nodes, megabytes in product(args.nodes, args.megabytes if args.app == "echo" else [0.0]):
        case = Case(args.app, args.kind, nodes, megabytes, args.rounds, args.idle, args.timeout, tuple(args.words))
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            try:
                with stop_requests():
                    found += rows(case, Path(folder) / "logs")
            except StopRequested as stop:
                sys.exit(128 + stop.signum)
            except (LoadError, SuperLinkError) as error:
                print(f"{case} stopped here: {error}", file=sys.stderr, flush=True)
        save(args.output, found)
        print(table(found), flush=True)


def save(path: Path, found: list[Row]) -> None:
    """Write all rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in found)


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of the app winnow")
    parser.add_argument("--nodes", type=int, nargs="+", default=[50])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--app", choices=APPS, default="winnow")
    parser.add_argument("--kind", choices=KINDS, default="forked", help="what a node is; see above")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1.0], help="model sizes of the app echo")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to look at idle nodes before the run")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that a round may take")
    parser.add_argument("--output", type=Path, default=Path("load.csv"))
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
