"""Output may be lost at any time: what only shows something ends then, a run goes on."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from server_app import app
from server_app.output import OutputLostError, lasting_output, shown_output
from tests.conftest import ROOT

Broken = Callable[[], TextIO]


def no_reader() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk() -> TextIO:
    return open("/dev/full", "w")


@contextmanager
def output_to(stream: TextIO, monkeypatch: pytest.MonkeyPatch, name: str = "stdout") -> Iterator[None]:
    """Let the block write there; closing the stream fails if something is left that nobody takes."""
    with stream, monkeypatch.context() as patch:
        patch.setattr(sys, name, stream)
        yield


@pytest.mark.parametrize("broken", [no_reader, full_disk])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_goes_on_without_its_output(broken: Broken, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    with output_to(broken(), monkeypatch, name):
        with lasting_output() as loss:
            for each in range(3):
                print(each, file=getattr(sys, name), flush=True)
                done.append(each)
        assert not getattr(sys, name).closed, "what was there before is back"
    assert done == [0, 1, 2]
    assert loss.reason in {"Broken pipe", "No space left on device"}


@pytest.mark.parametrize(("broken", "code", "said"), [(no_reader, 141, ""), (full_disk, 1, "No space left on device")])
@pytest.mark.parametrize("flush", [True, False])
def test_what_only_shows_something_ends(
    broken: Broken,
    code: int,
    said: str,
    flush: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with output_to(broken(), monkeypatch), pytest.raises(OutputLostError) as caught, shown_output():
        print("anything", flush=flush)
    assert caught.value.exit_code == code
    assert said in capsys.readouterr().err


def test_lost_error_output_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with output_to(full_disk(), monkeypatch, "stderr"), shown_output():
        print("a warning", file=sys.stderr, flush=True)


def test_a_run_inside_a_command_goes_on_and_the_command_ends_as_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with output_to(no_reader(), monkeypatch), shown_output():
        with lasting_output() as loss:
            print("round 1", flush=True)
        assert loss.reason == "Broken pipe"


@pytest.mark.parametrize("block", [lasting_output, shown_output])
def test_what_the_encoding_lacks_is_written_as_an_escape(
    block: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding="ascii"))
    with block():  # type: ignore[attr-defined]
        print("Zürich \udcff ⏳")
    assert kept.getvalue() == b"Z\\xfcrich \\udcff \\u23f3\n"


def test_everything_else_is_the_stream_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    with lasting_output() as loss:
        assert sys.stdout.encoding == before.encoding
        assert sys.stdout.isatty() == before.isatty()
    assert sys.stdout is before
    assert loss.reason == ""


def test_the_server_app_goes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []

    def run_variants(_grid: object, _context: object) -> None:
        for number in range(3):
            print(f"round {number}", flush=True)
            rounds.append(number)

    monkeypatch.setattr(app, "run_variants", run_variants)
    with output_to(full_disk(), monkeypatch):
        app.main(None, None)
    assert rounds == [0, 1, 2]


COMMANDS = {
    "shown": "with shown_output(): print('x' * 10)",
    "lasting": "with shown_output(), lasting_output(): print('x' * 10)",
    "help": "with shown_output(): argparse.ArgumentParser(prog='p').parse_args(['--help'])",
}
OUTPUTS = {">&-": (0, 0), "2>&-": (0, 0), ">&- 2>&- <&-": (0, 0), ">/dev/full": (1, 0), ">/dev/full 2>&1": (1, 0)}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_process_ends_without_a_traceback(command: str, output: str, tmp_path: Path) -> None:
    code = f"""
import argparse, sys
sys.path.insert(0, {str(ROOT)!r})
from server_app.output import OutputLostError, lasting_output, shown_output
try:
    {COMMANDS[command]}
except OutputLostError as lost:
    sys.exit(lost.exit_code)
with open("file", "w") as file: print(file.fileno() > 2, file=file)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    shell = f"{sys.executable} -I -S script.py {output}"
    done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
    assert done.returncode == OUTPUTS[output][command == "lasting"]
    if command != "help" and not done.returncode:
        assert (tmp_path / "file").read_text() == "True\n", "no file of ours has the descriptor of an output"
