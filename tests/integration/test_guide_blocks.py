"""Every code block of the guides is run or checked: Python is executed, ``winnow`` is called, tables are read.

A block starts in a folder with an app, the files that earlier blocks of its page show, and the data that its commands
name. What is not started here is in one table, ``NOT_STARTED``, with the reason; a block or command that no rule covers
fails.
"""

import importlib
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from glob import glob
from io import StringIO
from pathlib import Path

import pytest
import yaml
from flwr.common.config import parse_config_args

from client_app.losses import LOSSES
from client_app.node import DATA_PATH, STATE_DIR, WEIGHTS_PATH
from server_app.cli import build_parser, main, names
from server_app.cli.config import SWEEPS, check_keys, find_toml, make_plan, split_words
from server_app.cli.recipes import recipe_layers
from server_app.cli.run import check_parts
from server_app.sweep.checks import check_runs
from server_app.sweep.plan import SweepPlan
from server_app.validation.config import validate
from tasks.config import DEFAULTS, overlay
from tasks.protocol import Mode
from tests.conftest import ROOT
from tests.integration.guide_data import (
    MAKERS,
    make_audits,
    make_data,
    make_named_runs,
    make_run,
    make_sweep,
    make_trained_run,
)

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
FENCE = re.compile(r"^ *(```+|~~~+) *(\S*)")
COMMAND = re.compile(r"^(winnow [a-z]+|(python|make|flwr|docker|pip|flower-\w+)) ", re.MULTILINE)

NOT_STARTED = {
    r"\. \.venv/bin/activate$": "changes the reader's shell",
    r"pip install ": "needs a package index",
    r"pre-commit install$": "changes the reader's repository",
    r"make [a-z-]+": "sets up, starts or tests everything; the target is looked up",
    r"flwr run ": "starts a SuperLink that stays; the settings are checked",
    r"flower-supernode ": "needs a SuperLink; the node's settings are checked",
    r"docker ": "needs Docker; what it hands to winnow is parsed and checked",
    r"mkdir backup$": "a folder for what Docker writes",
    r"cat > \.env": "a file that only Docker reads; tests/deployment uses such a one",
    r"winnow federation ": "starts processes with ports; parsed, and the settings are checked",
    r"winnow site pack ": "needs a coordinator's keys and image; parsed",
    r"kubectl ": "needs a cluster; the files are looked up",
    r"nft -f ": "changes this machine's firewall; the file is looked up",
    r"iptables ": "changes this machine's firewall",
    r"winnow audit open ": "serves a page until it is interrupted; parsed",
    r"winnow run (cifar10-gpu|[\w-]+@)": "needs a GPU and its data; the settings are checked",
    r"python -m tests\.compare_runs ": "trains six times; the module is looked up",
    r"python -m benchmarks\.\w+ --(?!help)": "trains for minutes; the module's --help names the options",
    r"python -m pytest tests/": "the tests of the repository, which run anyway; the files are looked up",
}
NEEDS_DATA = re.compile(r"run cifar10-|task\.name=(cifar|ag-news|isic)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its kind (the word after the fence), its text, and the prose before it."""

    page: str
    line: int
    kind: str
    text: str
    before: str


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a page; one without an end fails."""
    prose: list[str] = []
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        opening = FENCE.match(line)
        if not opening:
            prose.append(line)
            continue
        inside: list[str] = []
        for _, each in lines:
            if each.strip() == opening[1]:
                break
            inside.append(each)
        else:
            raise AssertionError(f"{page}:{number}: the block has no end")
        yield Block(page, number, opening[2], "\n".join(inside) + "\n", "\n".join(prose))
        prose = []


BLOCKS = [block for page in PAGES for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text())]


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a shell block, each in one line and without comments; here-documents are left out."""
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        command = re.sub(r"(^|\s+)#\s.*$", "", line).strip()
        if not command:
            continue
        if here := re.search(r"<<(\w+)", command):
            assert here[1] in lines, f"no {here[1]} after {command!r}"
        yield from command.split(" && ")


def file_name(block: Block) -> str:
    """The file of a Python block: named in its first line, or last in the prose before it."""
    first = re.match(r"# (\S+\.py)\n", block.text)
    named = re.findall(r"`([\w/]+\.py)`", block.before)
    assert first or named, f"{block.page}:{block.line}: say in a first line '# name.py' which file this is"
    return first[1] if first else str(named[-1])


class Reader:
    """Somebody who follows a page in a folder of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, data: Path | None) -> None:
        self.folder = folder
        self.data = data
        self.skipped: list[str] = []
        self._monkeypatch = monkeypatch

    def follow(self, block: Block) -> None:
        """Do what a block says, by its kind."""
        rules: dict[str, Callable[[Block], None]] = {
            "python": self.python,
            "sh": lambda shown: [self.shell(command) for command in commands(shown.text)] and None,
            "toml": self.toml,
            "yaml": self.yaml,
            "": self.output,
        }
        assert block.kind in rules, f"{block.page}:{block.line}: no rule for blocks of the kind {block.kind!r}"
        rules[block.kind](block)

    def python(self, block: Block) -> None:
        """Save the file and import it; lines of a file that is there already are executed."""
        name = file_name(block)
        if (ROOT / name).exists():
            exec(compile(block.text, f"{block.page}:{block.line}", "exec"), {})
            return
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(block.text)
        module = name.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(module, self.folder / name)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        self._monkeypatch.setitem(sys.modules, module, loaded)
        spec.loader.exec_module(loaded)

    def toml(self, block: Block) -> None:
        """Use the table as a recipe, or as the file of a sweep."""
        if "axes" in tomllib.loads(block.text):
            self.sweep(block.text)
            return
        name = self.save(block)
        plan = make_plan([name], ROOT, self.folder)
        if plan.flat["task.name"] in MAKERS and not plan.flat["task.data-path"]:  # only the nodes have data
            check_parts(plan, Mode.DEPLOYMENT)
        else:
            self.winnow(["run", "--dry-run", name])

    def save(self, block: Block) -> str:
        """Save a table under the name that the prose before it gives last, and return the name."""
        name = next(reversed(re.findall(r"`([\w-]+\.toml)`", block.before)), "recipe.toml")
        (self.folder / name).write_text(block.text)
        return name

    def sweep(self, text: str) -> None:
        """Read a sweep file, and check all of its runs; of one for a GPU a run of each option, with CPU settings."""
        file = self.folder / "sweep.toml"
        file.write_text(text)
        plan = SweepPlan.read(file, self.folder)
        first = {run.point[plan.file.compared]: run.flat for run in reversed(plan.samples())}
        if not any(flat.get("train.device") == "cuda" for flat in first.values()):
            check_runs(plan)
        elif self.data is None:
            self.skipped.append(f"winnow sweep {plan.file.name}")
        else:
            for flat in first.values():
                validate({**flat, "train.device": "cpu", "federation.client-gpus": 0.0}, trials=False)

    def yaml(self, block: Block) -> None:
        """Read it, and look up the services that it extends; tests/deployment starts it."""

        class Loader(yaml.SafeLoader):
            """Also knows compose's tags, such as ``!reset``."""

        Loader.add_multi_constructor("!", lambda loader, tag, node: None)
        for service in yaml.load(block.text, Loader)["services"].values():
            if base := service.get("extends"):
                assert base["service"] in yaml.safe_load((ROOT / base["file"]).read_text())["services"]

    def output(self, block: Block) -> None:
        """Shown output, or a drawing: no command."""
        found = COMMAND.search(block.text)
        assert not found, f"{block.page}:{block.line}: {found and found[0]!r} in a block that is not marked as sh"

    def shell(self, command: str) -> None:
        """Run one command, or check it where it is not to be started."""
        words = [word for word in shlex.split(command, comments=True) if word not in ("...", "…")]
        if any(re.match(pattern, command) for pattern in NOT_STARTED):
            self.not_started(command, words)
        elif words[0] == "winnow":
            self.winnow(words[1:])
        elif words[:3] == ["python", "-m", "pytest"]:
            self.pytest(words[3:])
        elif words[:2] == ["python", "-m"] and words[3:] == ["--help"]:
            self.help(words[2])
        else:
            raise AssertionError(f"no rule for {command!r}: run it here, or say in NOT_STARTED why not")

    def winnow(self, words: list[str]) -> None:
        """Call the command; a run is checked in full and not started."""
        if NEEDS_DATA.search(" ".join(words)):
            if self.data is None:
                self.skipped.append(" ".join(words))
                return
            words = [word.replace("/path/to/folder", str(self.data)) for word in words]
        settings = [word for word in words[1:] if words[0] == "run" and not word.startswith("-")]
        changes = overlay(*split_words(settings)[1])
        make_data(changes, self.folder)
        if changes.get("run.resume"):
            make_run(self.folder / str(changes["run.resume"]))
        if words[0] == "sweep":
            args = build_parser().parse_args(words)
            if args.file != "sweep.toml":  # the page shows that one
                self.sweep(find_toml(args.file, self.folder, SWEEPS, "sweep").read_text())
            return
        if words[0] in ("results", "report"):
            make_sweep(self.folder / words[1])
        if words[0] in ("export", "predict"):
            args = build_parser().parse_args(words)
            make_trained_run(self.folder / args.run, [self.folder / file for file in getattr(args, "files", [])])
        if words[0] == "audit":
            make_audits(self.folder, words)
            words = [each for word in words for each in (sorted(glob(word)) if "*" in word else [word])]
        if words[0] in ("runs", "compare"):
            make_named_runs(self.folder / "runs")
        dry = ["--dry-run"] if words[0] == "run" and not {"--dry-run", "--help"} & set(words) else []
        try:
            status = main([*words, *dry])
        except SystemExit as end:  # --help
            status = int(end.code or 0)
        assert status == 0, f"winnow {' '.join(words)} ended with {status}"

    def pytest(self, files: list[str]) -> None:
        """Call the tests that the page shows."""
        for file in files:
            module = importlib.import_module(file.removesuffix(".py"))
            tests = [value for name, value in vars(module).items() if name.startswith("test_")]
            assert tests, f"no tests in {file}"
            for test in tests:
                test()

    def help(self, module: str) -> None:
        """Show the help of one of our modules."""
        self._monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        assert not end.value.code

    def not_started(self, command: str, words: list[str]) -> None:
        """Check what can be checked of a command without starting it."""
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif words[:2] == ["python", "-m"]:
            self.looked_up(words[2], words[3:])
        elif words[0] == "flwr" and "-c" in words:
            check_keys({**DEFAULTS, **parse_config_args([words[words.index("-c") + 1]])})
        elif words[0] in ("kubectl", "nft"):
            named = re.findall(r"(?<![\w/])(?:deploy|server_app)/[\w./-]+", command)
            assert [file for file in named if not file.startswith("deploy/keys/") and not (ROOT / file).exists()] == []
        elif words[0] == "flower-supernode":
            assert parse_config_args([words[words.index("--node-config") + 1]]).keys() <= {
                DATA_PATH,
                STATE_DIR,
                WEIGHTS_PATH,
            }
        elif words[0] == "winnow":
            self.parsed(words[1:])
        elif words[:2] == ["docker", "compose"] and "winnow" in words and "--entrypoint" not in words:
            self.parsed(["federation", *words[words.index("winnow") + 1 :]])  # the service's own entrypoint
        elif "server_app.cli" in words:
            self.parsed(words[words.index("server_app.cli") + 1 :])

    def looked_up(self, module: str, words: list[str]) -> None:
        """Check that files of tests are there, and that a module's help names the options that it is given."""
        if module == "pytest":
            assert [file for file in words if not (ROOT / file).exists()] == []
            return
        if options := [word for word in words if word.startswith("--")]:
            with redirect_stdout(StringIO()) as shown:
                self.help(module)
            assert [option for option in options if option not in shown.getvalue()] == []

    def parsed(self, words: list[str]) -> None:
        """Parse a command line of winnow, and check keys, types and ranges of its settings."""
        args, rest = build_parser().parse_known_args(words)
        assert [word for word in rest if word.startswith("-")] == []
        recipe, layers = split_words([*getattr(args, "words", []), *rest])
        chosen = recipe_layers(recipe, self.folder) if recipe else []
        check_keys(overlay(DEFAULTS, *chosen, *layers))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader in a folder with an app; plug-ins beside it are found, and nothing that is registered stays."""
    folder = os.environ.get("WINNOW_DATA")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES._entries))
    source = names.names  # a page's own loss is registered, but its file is not where the names are read from
    written = lambda kind: [each.name for each in LOSSES.entries()] if kind == "loss" else source(kind)
    monkeypatch.setattr(names, "names", written)
    return Reader(tmp_path, monkeypatch, Path(folder).resolve() if folder else None)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_works_as_it_is_shown(block: Block, reader: Reader) -> None:
    for earlier in BLOCKS:
        if earlier.page == block.page and earlier.line < block.line and earlier.kind == "python":
            reader.python(earlier)
        if earlier.page == block.page and earlier.line < block.line and earlier.kind == "toml":
            reader.save(earlier)
    reader.follow(block)
    if reader.skipped:
        pytest.skip(f"without WINNOW_DATA: {', '.join(reader.skipped)}")


def test_all_blocks_are_found_and_no_reason_is_left_over() -> None:
    fences = sum(bool(FENCE.match(line)) for page in PAGES for line in page.read_text().splitlines())
    assert len(BLOCKS) * 2 == fences
    shown = [command for block in BLOCKS if block.kind == "sh" for command in commands(block.text)]
    assert [pattern for pattern in NOT_STARTED if not any(re.match(pattern, command) for command in shown)] == []


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("ruby", "puts 1", "no rule for blocks of the kind 'ruby'"),
        ("sh", "curl https://example.org", "no rule for 'curl https://example.org'"),
        ("sh", "python setup.py", "no rule for 'python setup.py'"),
        ("sh", "winnow run loss.nam=ce", "ended with 2"),
        ("sh", "winnow federation run --nodes 2 loss.nam=ce", "unknown key 'loss.nam'"),
        ("sh", "docker compose run --rm winnow submit train.epochs=0", "must be at least 1"),
        ("sh", "flwr run . -c 'sed=2'", "unknown key 'sed'"),
        ("sh", "make cofee", "make cofee"),
        ("", "winnow run loss.name=ce", "not marked as sh"),
        ("toml", "seed = 'one'", "must be a whole number"),
        ("python", "# broken.py\nraise ValueError('shown but wrong')\n", "shown but wrong"),
        ("python", "x = 1\n", "which file this is"),
    ],
)
def test_a_block_that_does_not_work_fails(kind: str, text: str, message: str, reader: Reader) -> None:
    with pytest.raises((AssertionError, ValueError), match=message):
        reader.follow(Block("new.md", 1, kind, text, ""))


def test_a_block_without_an_end_fails() -> None:
    with pytest.raises(AssertionError, match=r"new\.md:2: the block has no end"):
        list(blocks_of("new.md", "text\n```sh\nwinnow run\n"))
