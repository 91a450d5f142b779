"""Which changes of code are left out, and which tests are asked about the others."""

import inspect
from pathlib import Path

import pytest

from benchmarks.mutants import Mutant, Reached, functions, left_out

SOURCE = inspect.cleandoc(
    """
    from dataclasses import dataclass
    LEAST = 4

    @dataclass(frozen=True)
    class Rule:
        limit: int = 3

        def bounded(self, value: int) -> int:
            assert value > -1, "not negative"
            def twice() -> int:
                return 2 * value
            return min(twice(), self.limit)

    def told(value: int) -> str:
        return f"{value + 1} of {LEAST}" + str(sum(a * b for a, b in zip([1], [2], strict=True)))

    WORST = told(0)
    """
)
LINES = SOURCE.splitlines()


def mutant(text: str) -> Mutant:
    line = next(i for i, found in enumerate(LINES, 1) if text in found)
    return Mutant(Path("rule.py"), SOURCE, line, "core/NumberReplacer", 0)


def test_text_assertions_frozen_and_strict_are_left_out() -> None:
    found = {LINES[first[0] - 1][first[1] : last[1]] for first, last in left_out(SOURCE)}
    assert found == {"frozen=True", "strict=True", 'assert value > -1, "not negative"', 'f"{value + 1} of {LEAST}"'}


def test_functions_are_those_outside_of_others() -> None:
    names = [LINES[body.start - 2].strip() for body in functions(SOURCE)]
    assert names == ["def bounded(self, value: int) -> int:", "def told(value: int) -> str:"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("return 2 * value", ["quick", "slow"]),  # they enter the function around it
        ("LEAST = 4", ["other", "quick", "slow"]),
        ("limit: int = 3", ["other", "quick", "slow"]),
        ("return f", ["other", "quick", "slow"]),  # it is run at the import
    ],
)
def test_tests_that_enter_the_function_are_asked_and_all_where_an_import_runs_it(
    text: str, expected: list[str]
) -> None:
    place = mutant("return min").line
    entered = {place: {"slow", "quick"}, mutant("return f").line: {"", "slow"}}
    reached = Reached({"slow": 2.0, "quick": 0.5, "other": 0.1}, {"rule.py": entered})
    assert reached.tests(mutant(text)) == expected
