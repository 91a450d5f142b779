"""Mutation score of the formulas: how many small changes of the code make a test fail, and which ones none notices.

    pip install cosmic-ray
    python -m benchmarks.mutants --sample 10 --seed 1 methods losses aggregators detection

A mutant is the code with one operator, comparison, number or truth value changed, by the operators of Cosmic Ray. Of
all mutants of a package a sample is drawn; each runs in a fork of this process, which has imported the libraries and
not the package, so the files stay as they are. A fork in which a test fails, or whose CPU time is used up, has killed
its mutant. Survivors are printed: each is a test that is missing, or a change that changes nothing.
"""

import argparse
import ast
import difflib
import importlib
import os
import random
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "numpy", "scipy.stats", "sklearn.mixture", "pytest", "hypothesis", "flwr.app", "flwr.serverapp")
AGGREGATORS = (
    "tests/parity/test_aggregators.py tests/parity/test_aggregators_coordinates.py tests/property/test_aggregators.py"
)
CONSTANTS = "tests/unit/project/test_published_defaults.py"
METHODS = "tests/unit/client_app/methods tests/unit/client_app/test_cohorts.py tests/unit/client_app/test_trainer.py"
TARGETS = {
    "methods": ("client_app/methods", f"{CONSTANTS} {METHODS}"),
    "losses": ("client_app/losses", f"{CONSTANTS} tests/parity/test_losses_vectors.py tests/unit/client_app/losses"),
    "aggregators": ("strategies/aggregators", f"{CONSTANTS} tests/unit/strategies/aggregators {AGGREGATORS}"),
    "detection": (
        "strategies/detection",
        f"{CONSTANTS} tests/unit/strategies/detection tests/parity/test_detection.py",
    ),
}
"""By name, the package and the tests of it, those first that are quick to fail."""
OPERATORS = tuple(
    f"core/{name}"
    for name in (
        *("NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot", "ReplaceTrueWithFalse"),
        *("ReplaceFalseWithTrue", "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"),
        *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul")),
        *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq")),
    )
)
SECONDS = 60  # of CPU for one mutant


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: Path
    before: str
    after: str

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
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    for file in sorted(folder.glob("*.py")):
        source = file.read_text(encoding="utf-8")
        nodes = list(ast_nodes(get_ast(source)))
        for name in OPERATORS:
            operator = get_operator(name)()
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            for place in range(count):
                after = mutate_code(source, operator, place)
                if after is not None and _is_python(after):
                    yield Mutant(file, source, after)


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


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


def survives(mutant: Mutant, tests: str) -> bool:
    """Tell whether all tests pass with the change."""
    child = os.fork()
    if not child:
        _test(mutant, tests)
    return os.waitpid(child, 0)[1] == 0


def _test(mutant: Mutant, tests: str) -> NoReturn:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.meta_path.insert(0, Changed(mutant))
        import pytest

        code = int(pytest.main(["-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests.split()]))
    finally:
        os._exit(code)


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
        chosen = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
        if not survives(Mutant(chosen[0].file, chosen[0].before, chosen[0].before), tests):
            sys.exit(
                f"{target}: a test fails without any change, or is beyond {SECONDS} CPU seconds: see  pytest {tests}"
            )
        killed = 0
        for mutant in chosen:
            if survives(mutant, tests):
                print(f"  survives: {mutant.shown()}", flush=True)
            else:
                killed += 1
        print(f"{target}: {killed} of {len(chosen)} killed ({len(everything)} mutants in all)", flush=True)


if __name__ == "__main__":
    main()
