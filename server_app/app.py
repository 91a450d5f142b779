"""ServerApp: from Flower's run configuration to one run, or to several variants one after the other."""

import json
import logging
import os
import time
from logging import WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import FLOWER_LOGGER, log
from flwr.serverapp import Grid, ServerApp

from server_app.output import lasting_output
from server_app.registration import FederationError
from server_app.report import comparison_table
from server_app.report.text import roughly
from server_app.run import run_training
from server_app.validation.config import validate
from tasks.config import Flat, is_checked, variant_config, variants
from tasks.protocol import Mode, PublicError

app = ServerApp()
SIMULATION_GRIDS = ("InMemoryGrid", "WorkerGrid")  # Flower's and ours


def without_traceback(record: logging.LogRecord) -> bool:
    """Keep a log record, but take the traceback from an error whose message says what a user should change."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FederationError | PublicError):
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {error}", (), None
    return True


FLOWER_LOGGER.addFilter(without_traceback)  # Flower logs what ends a ServerApp, and operators follow that log


def mode_of(grid: Grid) -> Mode:
    """Find out where the clients are, by the grid: the engines have their own for nodes simulated on this machine.

    Only :func:`main` asks; all others get the answer. Any other grid is taken for one of real nodes.
    """
    return Mode.SIMULATION if type(grid).__name__ in SIMULATION_GRIDS else Mode.DEPLOYMENT


def overrides(flat: Flat, changes: Flat) -> Flat:
    """Return in what a variant differs from the configuration that the clients see."""
    return {key: value for key, value in variant_config(flat, changes).items() if value != flat.get(key)}


def variant_line(place: str, name: str, done: int, left: int, seconds: float) -> str:
    """Return which variant begins, and about how long all that are left will take, once ``done`` rounds have shown it.

    >>> variant_line("3 of 12", "fedavg", 10, 70, 60.0)
    'Variant 3 of 12: fedavg, about 7 min left'
    """
    return f"Variant {place}: {name}" + (f", about {roughly(left * seconds / done)} left" if done else "")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Check the whole configuration, then run every variant with the same clients; lost output does not end them.

    Raises
    ------
    ConfigError
        Before any client starts, with every error found.
    """
    with lasting_output():
        run_variants(grid, context)


def run_variants(grid: Grid, context: Context) -> None:
    """Do what :func:`main` says."""
    flat = dict(context.run_config)
    mode = mode_of(grid)
    checked = validate(flat, mode, trials=not is_checked(flat, mode))
    for issue in checked.warnings:
        log(WARNING, "%s", issue.line)
    total = left = sum(settings.num_server_rounds for settings in checked.settings.values())
    started, runs = time.monotonic(), list[Path]()
    for name, settings in checked.settings.items():
        if len(checked.settings) > 1:
            place = f"{len(runs) + 1} of {len(checked.settings)}"
            print(variant_line(place, name, total - left, left, time.monotonic() - started), flush=True)
        left -= settings.num_server_rounds
        changes = json.dumps(overrides(flat, variants(flat)[name]))
        runs.append(run_training(grid, settings, mode, name, changes, left))
    if len(runs) > 1:
        print(f"\n{comparison_table(runs)}", flush=True)
    for path in runs:
        print(f"Run directory: {os.fspath(path)}", flush=True)
