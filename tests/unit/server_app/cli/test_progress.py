"""Progress of a sweep: a bar with the time left on a terminal, plain lines elsewhere."""

import io

import pytest

from server_app.cli.progress import shown_progress


class Terminal(io.StringIO):
    """Takes text as a terminal does."""

    def isatty(self) -> bool:
        return True


def test_elsewhere_there_are_the_lines_alone() -> None:
    out = io.StringIO()
    with shown_progress(out) as (tell, advance):
        advance(3, 12, 430.0)
        tell("[3/12] a [b], seed 1")
    assert out.getvalue() == "[3/12] a [b], seed 1\n"


def test_on_a_terminal_a_bar_says_how_many_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    out = Terminal()
    with shown_progress(out) as (tell, advance):
        tell("[3/12] a [b], seed 1" + " long" * 30)
        advance(3, 12, 430.0)
    shown = out.getvalue()
    assert "[3/12] a [b], seed 1" + " long" * 30 in shown  # neither wrapped nor read as markup
    assert "3 of 12 runs" in shown
    assert "about 7 min left" in shown
