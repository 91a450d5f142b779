"""Starts: what a process imports before it works. Modules are counted, not seconds: imports are most of its start."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.starts import CLIENT
from tests.conftest import ROOT
from tests.run_directories import accuracies, write_run

SLOW = {"torch", "torchvision", "flwr", "ray", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas"}
COMPILER = "torch._dynamo"  # with it come sympy, triton and 900 modules more

WITH_ADAM = f"""{CLIENT}
from dataclasses import replace
settings = replace(settings, train=replace(settings.train, optimizer="adam"))
run_client(model, data, settings, RoundConfig(1, 0.1, (1, 0, 1)), None, torch.device("cpu"))
"""

COMMANDS = """
import contextlib
from server_app.cli import main
wrong = ("learning=1", "train.epochs=0", "variants=x", "no-such-recipe", "demo@no-such-setting", "demo seed=x")
wrong += ("demo loss.name=nope", "method.name=nope strategy.aggregator=nope")
for argv in (["--help"], ["run", "--help"], ["list"], ["list", "loss"], *(["run", *words.split()] for words in wrong)):
    with contextlib.suppress(SystemExit):
        assert main(argv) == (0 if argv[0] == "list" else 2), argv
"""

RESULTS = """
from pathlib import Path
from tempfile import TemporaryDirectory
from server_app.cli import main
from tests.sweep_cases import design_of, synthetic_runs, write_sweep
with TemporaryDirectory() as folder:
    design = design_of()
    write_sweep(Path(folder), design, synthetic_runs(design))
    assert main(["results", folder]) == 0
"""

CHECKS = """
import gc
import sys
from server_app.cli import main
before = gc.get_stats()[0]["collections"]
main(["doctor"])
assert gc.get_stats()[0]["collections"] < before + 10 and gc.isenabled()
assert "torch" in sys.modules and "flwr" not in sys.modules
assert main(["run", "--dry-run"]) == 0
import server_app.app
"""


def imported(code: str) -> set[str]:
    """The modules in a fresh process after ``code``; what it prints does not count."""
    ending = "import json, sys; print('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{ending}"], check=True, capture_output=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_what_needs_no_parts_of_a_run_imports_none():
    modules = imported(COMMANDS)
    assert not modules & {*SLOW, "client_app", "strategies"}
    assert len(modules) < 450


def test_results_of_a_sweep_are_shown_without_torch_and_the_slow_half_of_scipy():
    modules = imported(RESULTS)
    assert modules & SLOW == {"scipy"}
    assert "scipy.stats" not in modules


def test_lists_and_comparisons_of_runs_import_no_parts_of_a_run(tmp_path: Path):
    folders = [str(write_run(tmp_path / name, accuracies(0.1, 0.9), best_round=1)) for name in ("a", "b")]
    for words in (["runs", str(tmp_path)], ["compare", *folders]):
        modules = imported(f"from server_app.cli import main; assert main({words!r}) == 0")
        assert not modules & {*SLOW, "client_app", "strategies"}, words
        assert len(modules) < 450


def test_a_client_s_process_trains_without_the_compiler_and_scientific_libraries():
    modules = imported(WITH_ADAM)
    assert modules & (SLOW | {COMPILER, "sympy"}) == {"torch", "flwr"}


def test_a_check_of_machine_or_run_and_the_server_import_no_compiler_and_scientific_libraries():
    modules = imported(CHECKS)
    assert modules & (SLOW | {COMPILER}) == {"torch", "flwr"}
