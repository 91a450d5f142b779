"""The guides name settings, recipes, kinds and files that exist."""

import importlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from server_app.cli.config import RECIPES, split_words
from server_app.cli.listing import kinds
from server_app.cli.recipes import recipe_layers
from tasks.config import FIELDS
from tests.conftest import ROOT
from tests.registries import registries

PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "benchmarks/README.md")
    if page.name != "CHANGELOG.md"
}
SECTIONS = "|".join(sorted({name.partition(".")[0] for name in FIELDS if "." in name}))
RUNS = re.compile(r"winnow (?:run|preview|federation run|submit)\b((?: .*\\\n)* ?.*)$", re.MULTILINE)
MADE = ("deploy/keys", "deploy/packed/hospital-a", "client_app/losses/brier.py")  # by a command, and by the reader
WITH_VALUE = ("--nodes", "--data", "--app", "--output", "--folder")
PACKAGES = "server_app|client_app|strategies|tasks|tests|benchmarks|examples|docs|deploy"


def command_lines(text: str) -> Iterator[list[str]]:
    """What follows the command in each line of a code block that starts a run: a recipe and settings."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for rest in RUNS.findall(block):
            words = shlex.split(re.sub(r"\\\n|\s#.*|…", "", rest))
            values = {place + 1 for place, word in enumerate(words) if word in WITH_VALUE}
            yield [word for place, word in enumerate(words) if word[0] != "-" and place not in values]


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_declared_settings_and_recipes_that_there_are(page: str) -> None:
    for words in command_lines(PAGES[page]):
        if "..." in words or "[recipe]" in words:
            continue
        recipe, layers = split_words(words)
        if recipe.endswith(".toml"):  # the page lets the reader write it
            assert f"`{recipe}`" in PAGES[page], words
        else:
            assert not recipe or recipe_layers(recipe, RECIPES), words
        assert set().union(*layers) <= set(FIELDS), words


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_is_declared(page: str) -> None:
    named = re.findall(rf"(?<![\w./-])((?:{SECTIONS})\.[a-z][a-z-]*[a-z])(?![\w(])", PAGES[page])
    assert [name for name in named if name not in FIELDS and not name.endswith(".md")] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_ours_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(rf"(?<![\w./-])((?:{PACKAGES})/[\w./-]*\w)", PAGES[page])
    assert {name for name in named if not (ROOT / name).exists() and not name.startswith(MADE)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_kind_that_a_page_lists_is_one(page: str) -> None:
    assert set(re.findall(r"winnow list ([a-z-]+)", PAGES[page])) <= set(kinds())


def pages_of(navigation: list[dict[str, Any]]) -> Iterator[str]:
    """The pages that a navigation names, however deep they lie."""
    for entry in navigation:
        for below in entry.values():
            yield from [below] if isinstance(below, str) else pages_of(below)


def test_the_navigation_of_the_site_has_every_page_once() -> None:
    named = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    made = {"index.md", "contributing.md", "benchmarks.md", "choices.md"}
    own = [page for page in named if page not in made and not page.startswith("reference/")]
    assert sorted(own) == sorted(page.name for page in ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_of_a_page_is_there_small_and_described(page: str) -> None:
    for words, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", PAGES[page]):
        assert len(words) > 20, target
        assert (ROOT / page).parent.joinpath(target).stat().st_size < 200_000, target


def rows() -> list[list[str]]:
    """The table of kinds in CONTRIBUTING.md, without its head."""
    lines = [line.strip("|").split("|") for line in PAGES["CONTRIBUTING.md"].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in cells] for cells in lines if len(cells) == 5]


def test_every_kind_has_a_row_for_those_who_add_a_built_in() -> None:
    assert {row[0].strip("`") for row in rows()} == {registry.listed for registry in registries()}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_says_where_the_registry_is_and_what_is_to_be_extended(row: list[str]) -> None:
    kind, place, _, line, tests = row
    module, name = re.fullmatch(r"`([\w.]+)` `(\w+)`", place).groups()  # type: ignore[union-attr]
    [registry] = [found for found in registries() if found.listed == kind.strip("`")]
    assert getattr(importlib.import_module(module), name) is registry
    assert [file for file in re.findall(r"`([\w/.]+)`", line + tests) if not (ROOT / file).exists()] == []
