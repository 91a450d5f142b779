"""Mutation score of the formulas: how many small changes of the code make a test fail, and which ones none notices.

    pip install cosmic-ray coverage
    python -m benchmarks.mutants --sample 10 --seed 1 methods losses aggregators detection

A mutant is the code with one operator, comparison, number or truth value changed, by the operators of Cosmic Ray. Of
all mutants of a package a sample is drawn; each runs in a fork of this process, which has imported the libraries and
not the package, so the files stay as they are. Of the package's tests those run that reach the changed function, the
quickest first, until one fails; where the change is outside functions, all may. A fork in which a test fails, or whose
CPU time is used up, has killed its mutant. Survivors are printed: each is a test that is missing, or a change that
changes nothing.

Left out from the start is what no number depends on: text in f-strings, assertions, which are for ourselves,
``frozen=True`` of dataclasses, and ``strict=True`` of ``zip``.
"""

import argparse
import ast
import difflib
import importlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("torch", "torch._dynamo", "numpy", "scipy.stats", "scipy.optimize", "sklearn.mixture", "sklearn.linear_model"),
    *("sklearn.metrics", "hypothesis", "flwr.app", "flwr.serverapp", "safetensors.torch"),
)
CONSTANTS = "tests/unit/project/test_published_defaults.py tests/unit/project/test_argument_ranges.py"
TARGETS = {
    "methods": (
        "client_app/methods",
        "tests/unit/client_app/methods tests/unit/client_app/test_cohorts.py tests/unit/client_app/test_trainer.py",
    ),
    "losses": (
        "client_app/losses",
        "tests/unit/client_app/losses tests/parity/test_losses_vectors.py tests/parity/test_losses_libraries.py "
        "tests/property/test_losses_properties.py tests/unit/client_app/test_cohorts.py "
        "tests/unit/client_app/test_trainer.py",
    ),
    "aggregators": (
        "strategies/aggregators",
        "tests/unit/strategies/aggregators tests/parity/test_aggregators.py tests/parity/test_aggregators_byzantine.py "
        "tests/parity/test_aggregators_byzfl.py tests/parity/test_aggregators_coordinates.py "
        "tests/property/test_aggregators.py",
    ),
    "detection": (
        "strategies/detection",
        "tests/unit/strategies/detection tests/parity/test_detection.py tests/property/test_detection_properties.py",
    ),
}
"""By name, the package and the tests of it, to which the pinned constants and ranges are added."""
OPERATORS = tuple(
    f"core/{name}"
    for name in (
        *("NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot", "ReplaceTrueWithFalse"),
        *("ReplaceFalseWithTrue", "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"),
        *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul")),
        *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq")),
    )
)
SECONDS = 10  # of CPU for one mutant, and three times what its tests took without a change
MEMORY = 4 << 30  # bytes

Span = tuple[tuple[int, int], tuple[int, int]]  # line and column of the start, and of the end


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the operator, and the how-manieth of the places where it applies."""

    file: Path
    before: str
    line: int
    operator: str
    place: int

    @cached_property
    def after(self) -> str:
        """The changed source; empty where it is none."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        after: str = mutate_code(self.before, get_operator(self.operator)(), self.place) or ""
        try:
            ast.parse(after)
        except SyntaxError:
            return ""
        return after

    @property
    def module(self) -> str:
        """The file's module."""
        name = ".".join(self.file.relative_to(ROOT).with_suffix("").parts)
        return name.removesuffix(".__init__")

    def shown(self) -> str:
        """The changed lines."""
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=0)
        changed = [line for line in lines if line[:1] in "-+" and line[:3] not in ("---", "+++")]
        return f"{self.file.relative_to(ROOT)}\n" + "\n".join(f"      {line}" for line in changed)


def mutants(folder: Path) -> Iterator[Mutant]:
    """Yield all mutants of a package."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator

    for file in sorted(folder.glob("*.py")):
        source = file.read_text(encoding="utf-8")
        nodes, spans = list(ast_nodes(get_ast(source))), left_out(source)
        for name in OPERATORS:
            operator = get_operator(name)()
            places = [place for node in nodes for place in operator.mutation_positions(node)]
            for i, (begin, _) in enumerate(places):
                if not any(first <= begin < last for first, last in spans):
                    yield Mutant(file, source, begin[0], name, i)


def left_out(source: str) -> list[Span]:
    """Return where no number depends on a change: f-strings, assertions, ``frozen`` and ``strict``."""
    found: list[ast.JoinedStr | ast.Assert | ast.keyword] = []
    for node in ast.walk(ast.parse(source)):
        guard = isinstance(node, ast.keyword) and node.arg in ("frozen", "strict")
        if guard or isinstance(node, ast.JoinedStr | ast.Assert):
            found.append(node)  # type: ignore[arg-type]
    return [((one.lineno, one.col_offset), (one.end_lineno or 0, one.end_col_offset or 0)) for one in found]


def functions(source: str) -> list[range]:
    """Return the lines of the bodies of all outermost functions and methods."""
    found: list[range] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                found.append(range(child.body[0].lineno, (child.end_lineno or 0) + 1))
            else:
                visit(child)

    visit(ast.parse(source))
    return found


class Changed(MetaPathFinder, SourceLoader):
    """Imports the mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Return the mutant's place, None for all other names."""
        if fullname != self.mutant.module:
            return None
        package = self.mutant.file.name == "__init__.py"
        return spec_from_loader(fullname, self, origin=str(self.mutant.file), is_package=package)

    def get_filename(self, fullname: str) -> str:
        """Return the original file, for what is said of errors."""
        return str(self.mutant.file)

    def get_data(self, path: str) -> bytes:
        """Return the changed source; nothing else is read by means of this, and no bytecode is written."""
        if path != str(self.mutant.file):
            raise OSError(path)
        return self.mutant.after.encode()


@dataclass
class Reached:
    """Which tests of a package enter which lines of it, and the CPU seconds of each test, in a run of all of them."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that may notice a change, the quickest first."""
        entered = self.lines.get(str(mutant.file), {})
        for body in functions(mutant.before):
            if mutant.line in body:
                found = set().union(*(entered.get(line, ()) for line in body))
                break
        else:
            found = {""}
        if "" in found:  # it is run when modules are imported: what depends on it is anywhere
            found = set(self.seconds)
        return sorted(found, key=lambda test: (self.seconds[test], test))


class Timer:
    """Counts the CPU time of every test, and tells the coverage which one runs."""

    def __init__(self, switch: Callable[[str], None]) -> None:
        self.switch = switch
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, None, None]:
        """Run one test."""
        self.switch(item.nodeid)
        before = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - before
        self.switch("")


class Chosen:
    """Runs the chosen tests only, in their order."""

    def __init__(self, tests: Collection[str]) -> None:
        self.place = {test: i for i, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the others out."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place), key=lambda item: self.place[item.nodeid]
        )


def reach(folder: Path, tests: str) -> Reached:
    """Run all tests in a fork of this process, and return what they enter."""
    with tempfile.TemporaryDirectory() as name:
        found = Path(name, "found.json")
        child = os.fork()
        if not child:
            _reach(folder, tests.split(), found)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"a test fails without any change: see  pytest {tests}")
        seconds, lines = json.loads(found.read_text(encoding="utf-8"))
    by_file = {file: {line: set(tests) for line, tests in of_file} for file, of_file in lines.items()}
    return Reached(seconds, by_file)


def _reach(folder: Path, tests: list[str], to: Path) -> NoReturn:
    code = 1
    try:
        from coverage import Coverage

        coverage = Coverage(data_file=None, source=[str(folder)], config_file=False)
        coverage.start()
        timer = Timer(coverage.switch_context)
        code = _pytest(tests, timer)
        coverage.stop()
        data = coverage.get_data()
        lines = {file: [*data.contexts_by_lineno(file).items()] for file in data.measured_files()}
        to.write_text(json.dumps([timer.seconds, lines]), encoding="utf-8")
    finally:
        os._exit(code)


def survives(mutant: Mutant, tests: list[str], seconds: float) -> bool:
    """Tell whether these tests pass with the change, in so many CPU seconds."""
    child = os.fork()
    if not child:
        _test(mutant, tests, int(SECONDS + 3 * seconds))
    return os.waitpid(child, 0)[1] == 0


def _test(mutant: Mutant, tests: list[str], seconds: int) -> NoReturn:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        sys.meta_path.insert(0, Changed(mutant))
        code = _pytest(sorted({test.split("::")[0] for test in tests}), Chosen(tests))
    finally:
        os._exit(code)


def _pytest(tests: list[str], plugin: Any) -> int:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    return int(pytest.main(["-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests], plugins=[plugin]))


def main() -> None:
    """Print each survivor, and the score of each package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--sample", type=int, default=10, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    options = parser.parse_args()
    os.chdir(ROOT)
    for name in LIBRARIES:
        importlib.import_module(name)
    for target in options.targets:
        folder, tests = TARGETS[target]
        everything = list(mutants(ROOT / folder))
        random.Random(options.seed).shuffle(everything)
        chosen = list(islice((mutant for mutant in everything if mutant.after), options.sample))
        reached = reach(ROOT / folder, f"{CONSTANTS} {tests}")
        killed = 0
        for mutant in chosen:
            noticing = reached.tests(mutant)
            if noticing and not survives(mutant, noticing, sum(reached.seconds[test] for test in noticing)):
                killed += 1
            else:
                print(f"  survives {len(noticing)} tests: {mutant.shown()}", flush=True)
        print(f"{target}: {killed} of {len(chosen)} killed ({len(everything)} mutants in all)", flush=True)


if __name__ == "__main__":
    main()
