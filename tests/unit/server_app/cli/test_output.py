"""What remains of a run's log on the user's terminal."""

import io
from pathlib import Path

import pytest

from server_app.cli.run import RunLog, tidy

ROUTINE = [
    "INFO :      Starting logstream for run_id `5972446878328867367`",
    "INFO :      Starting Flower Simulation",
    "WARNING :   Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.",
    "INFO :      Federation `@none/default` (2 simulated SuperNodes)",
    "INFO :      To change federation size, use the following command:",
    "INFO :      \tflwr federation simulation-config @none/default <superlink> --num-supernodes <N>",
    "Successfully installed winnow to /tmp/winnow-nbvq1234/apps/winnow.winnow.0.1.0.e57810da.",
    "Using SuperLink: winnow (127.0.0.1:25017)",
    "(ClientAppActor pid=10158) WARNING :   Manually terminating ClientAppActor",
    "INFO :      configure_train: Sampled 10 nodes (out of 10)",
    "INFO :      aggregate_train: Received 10 results and 0 failures",
    "(ClientAppActor pid=7) INFO :      fixedclipping_mod: parameters are clipped by value: 1.0000.",
    "(ClientAppActor pid=7) INFO :      adaptiveclipping_mod: ndarrays are clipped by value: 1.0000.",
    "(ClientAppActor pid=7) INFO :      LocalDpMod: local DP noise with 0.0484 stddev added to parameters",
    "INFO :      aggregate_train: arrays in `ArrayRecord` are clipped by value: 0.1000.",
    "INFO :      aggregate_fit: central DP noise with 0.1000 stdev added",
    "INFO :      ",
    "ERROR :     Exit Code: 700",
    "For more information, visit: <https://flower.ai/docs/framework/1.41/en/ref-exit-codes/700.html>",
]
KEPT = {
    "round 1/30  loss 2.0000  accuracy  20.0 %": "round 1/30  loss 2.0000  accuracy  20.0 %",
    "INFO :      a plug-in's own message": "a plug-in's own message",
    "INFO :      aggregate_train: Received 9 results and 1 failures": (
        "aggregate_train: Received 9 results and 1 failures"
    ),
    "WARNING :   noise.args has no effect": "WARNING: noise.args has no effect",
    "ERROR :     Simulation raised an exception": "ERROR: Simulation raised an exception",
    "(ClientAppActor pid=7) printed by a client": "(ClientAppActor pid=7) printed by a client",
    "(ClientAppActor pid=7) WARNING :   odd data": "(ClientAppActor pid=7) WARNING: odd data",
    "(raylet) 1 worker was killed: out of memory": "(raylet) 1 worker was killed: out of memory",
    "Traceback (most recent call last):": "Traceback (most recent call last):",
    '  File "app.py", line 1, in main': '  File "app.py", line 1, in main',
    "RuntimeError: Starting is impossible": "RuntimeError: Starting is impossible",
    "": "",
}


@pytest.mark.parametrize("line", ROUTINE)
def test_routine_is_left_out(line: str) -> None:
    assert tidy(line) is None


@pytest.mark.parametrize("line", KEPT)
def test_everything_else_is_shown(line: str) -> None:
    assert tidy(line) == KEPT[line]


def written(lines: list[str], verbose: bool = False) -> tuple[str, RunLog]:
    out = io.StringIO()
    log = RunLog(verbose, out)
    for line in lines:
        log.write(line)
    return out.getvalue(), log


def test_colours_are_removed_and_blank_lines_do_not_pile_up() -> None:
    lines = [
        "\n",
        "\x1b[92mINFO \x1b[0m:      one\n",
        "\n",
        "\x1b[91mERROR \x1b[0m:     Exit Code: 700\n",
        "\n",
        "two\n",
    ]
    assert written(lines)[0] == "one\n\ntwo\n"


def test_verbose_shows_every_line_as_it_came() -> None:
    lines = ["\x1b[92mINFO \x1b[0m:      Starting Flower Simulation\n", "round 1/2\n"]
    assert written(lines, verbose=True)[0] == "".join(lines)


@pytest.mark.parametrize("verbose", [False, True])
def test_the_latest_run_directory_is_remembered(verbose: bool) -> None:
    text, log = written(["Run directory: /runs/a b\n", "round 1/2\n", "Run directory: /runs/c\n"], verbose)
    assert log.run_directory == Path("/runs/c")
    assert "Run directory: /runs/a b\n" in text
    assert written(["round 1/2\n"])[1].run_directory is None
