"""The HTML report: self-contained, well formed, complete, and safe whatever the clients wrote."""

import base64
import hashlib
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from server_app.report import ReportError, headline, read_run, write_report
from server_app.storage.class_files import BEST, LAST, class_table, write_classes
from server_app.storage.run_directory import CLIENTS
from tasks.config import DEFAULTS
from tasks.metrics import server_metrics
from tests.run_directories import CLIENT_LINES, accuracies, write_run

HOSTILE = "</td><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\ud800\u202e"
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
VOID = {"meta", "img", "br", "input", "link"}


class Outline(HTMLParser):
    """The elements, attributes and text of a page; complains about elements that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1] in ("style", "script")):
            self.text += data


def rounds(last: int) -> list[dict[str, Any]]:
    return [
        {
            "round": number,
            "accuracy": 0.1 + 0.08 * number,
            "macro-f1": 0.05 + 0.08 * number,
            "loss": 2.3 * math.exp(-number),
            "validation_accuracy": 0.1 + 0.05 * number,
            "train_loss": 3.0 if number else None,
            "selected": 4,
            "iou": 0.25,
            "seconds": 1.5,
        }
        for number in range(last + 1)
    ]


def four_clients(reason: str | None = None) -> list[dict[str, Any]]:
    registration = [
        {"round": 0, "client": i, "examples": 20 + i, "noise_rate": 0.25 * i, "classes": [20, i]} for i in range(4)
    ]
    played: list[dict[str, Any]] = [
        {"round": r, "client": i, "weight": 0.4 - 0.1 * i} for r in range(1, 11) for i in range(4)
    ]
    played[0] = {"round": 1, "client": 0, "weight": None, "quarantine": reason}
    return [*registration, *played]


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def page_of(path: Path) -> str:
    return write_report(path).read_text(encoding="utf-8")


def test_everything_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = write_run(tmp_path, rounds(10), four_clients("NaN"), rounds=10, best_round=9, start_seconds=6.5)
    outline = Outline(page_of(path))
    assert headline(read_run(path)).replace(" %", "\u00a0%") in outline.text
    assert outline.tags.count("svg") == 4
    words = [
        "best on validation",
        "winnow run seed=1",
        "Classes held",
        "Wrong labels",
        "Iou",
        "nce+rce",
        "num-server-rounds",
    ]
    assert [word for word in words if word not in outline.text] == []
    assert "NaN\n(round 1)" in outline.text
    assert "all rounds, 1.5 s each (median); before them 6.5 s for the start" in outline.text
    # examples 20 to 23: 45 of 86; mean weights 0.36 (0.4, once quarantined), 0.3, 0.2 and 0.1: 0.3 of 0.96
    assert "have 52\u00a0% of the examples and received 31\u00a0% of the weight" in outline.text


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, rounds(10), four_clients()))
    assert set(re.findall(r"\w+://[^\s\"'<]*", page)) <= {SVG_NAMESPACE}
    outline = Outline(page)
    assert not {"link", "img", "iframe", "object", "base"} & set(outline.tags)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page
    assert not [name for name, _ in outline.attributes if name == "src" or name.startswith("on")]
    elsewhere = [value for name, value in outline.attributes if name == "href" and not value.startswith("#")]
    assert [value for value in elsewhere if not value.startswith("data:image/png;base64,")] == []
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_ids_are_unique_and_references_resolve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = page_of(write_run(tmp_path, rounds(10), four_clients()))
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)) <= {(i, "") for i in ids} | {("", i) for i in ids}


def with_classes(path: Path, number: int) -> Path:
    """A run with ``number`` classes, each of which is taken for the next one once and found three times."""
    labels = torch.arange(number).repeat(4)
    predictions = torch.cat([torch.arange(number).repeat(3), (torch.arange(number) + 1) % number])
    measured = server_metrics(torch.eye(number)[predictions], labels)[1]
    names = [HOSTILE.encode(errors="replace").decode(), *(f"class {n}" for n in range(1, number))]
    write_run(path, rounds(10), best_round=9)
    write_classes(path, LAST, class_table(10, names, measured))
    write_classes(path, BEST, class_table(9, names, measured))
    return path


@pytest.mark.parametrize("number", [4, 200, 201])
def test_classes_are_shown_with_a_picture_within_the_page(tmp_path: Path, number: int) -> None:
    pytest.importorskip("matplotlib")
    page = page_of(with_classes(tmp_path, number))
    outline = Outline(page)
    drawn = number <= 200  # more classes have no matrix
    assert ("Which class is taken for which?" in outline.text) is drawn
    assert ("img-src data:;" in page) is drawn
    pictures = [value for name, value in outline.attributes if name == "href" and not value.startswith("#")]
    assert [value.startswith("data:image/png;base64,") for value in pictures] == [True] * drawn
    assert "Recall, round 9" in outline.text
    assert outline.text.count("75.0\u00a0%") == 0  # plain spaces: the cells do not wrap
    assert outline.text.count("75.0 %") == 4 * min(number, 100)  # recall, precision, F1, and recall of the best
    assert ("These are the 100 of" in outline.text) == (number > 100)
    assert "img" not in outline.tags
    assert len(page) < 300_000


@pytest.mark.parametrize("simulation", [True, False])
def test_the_command_that_repeats_a_run_says_what_else_it_needs(tmp_path: Path, simulation: bool) -> None:
    outline = Outline(page_of(write_run(tmp_path, command="winnow federation submit seed=2", simulation=simulation)))
    assert "winnow federation submit seed=2" in outline.text
    assert ("With the same nodes, and the data that they had." in outline.text) is not simulation


@pytest.mark.parametrize("field", ["reason", "label", "status", "command", "started"])
def test_hostile_status(tmp_path: Path, field: str) -> None:
    status: dict[str, Any] = {field: HOSTILE}
    outline = Outline(page_of(write_run(tmp_path, **status)))
    assert outline.tags.count("script") == 1, "the page's own"
    assert "img" not in outline.tags
    assert "<script>alert(1)</script>" in outline.text


def test_hostile_quarantine_reasons(tmp_path: Path) -> None:
    clients = four_clients(HOSTILE)
    clients += [{"round": 10 + n, "client": 2, "quarantine": f"{'long ' * 500}{n}"} for n in range(1, 4)]
    clients += [{"round": 20 + n, "client": 3, "quarantine": f"reason {n}"} for n in range(9)]
    outline = Outline(page_of(write_run(tmp_path, rounds(10), clients)))
    assert outline.tags.count("script") == 1, "the page's own"
    assert "img" not in outline.tags
    assert "</td><script>alert(1)</script>" in outline.text
    assert "\u202e" not in outline.text
    assert "long " * 50 not in outline.text
    assert "and 5 other reasons" in outline.text


def test_reason_in_many_rounds_is_abbreviated(tmp_path: Path) -> None:
    clients = [{"round": r, "client": 0, "quarantine": "late"} for r in range(1, 10)]
    assert "(9 rounds: 1, 2, 3, 4, 5, 6, …)" in page_of(write_run(tmp_path, clients=clients))


def test_failed_before_the_first_round(tmp_path: Path) -> None:
    reason = "ConfigError: 2 errors:\n  - epochs = 0\n  - <b>"
    path = write_run(tmp_path, status="failed", reason=reason)
    (path / CLIENTS).unlink()
    page = page_of(path)
    outline = Outline(page)
    assert "The run failed before the first round: ConfigError: 2 errors." in outline.text
    assert reason in outline.text
    assert "b" not in outline.tags
    assert "svg" not in outline.tags
    assert "install" not in outline.text.lower()


def test_without_matplotlib(tmp_path: Path, without_matplotlib: None) -> None:
    outline = Outline(page_of(write_run(tmp_path, rounds(10), four_clients())))
    assert "svg" not in outline.tags
    assert "pip install -e '.[report]'" in outline.text
    assert outline.tags.count("table") == 6
    assert "90.0 %" in outline.text


def test_no_weights_no_noise(tmp_path: Path) -> None:
    lines = [{**line, "weight": None, "noise_rate": None, "classes": None} for line in CLIENT_LINES]
    outline = Outline(page_of(write_run(tmp_path, accuracies(0.1, 0.2, None), lines, simulation=False)))
    assert "gives no weights to whole clients" in outline.text
    assert "Weight, mean" not in outline.text
    assert "Wrong labels" not in outline.text
    assert "separate processes or machines" in outline.text


def test_skipped_rounds_are_marked(tmp_path: Path) -> None:
    metrics = [*accuracies(0.1, 0.2), {"round": 2, "skipped": True, "learning_rate": 1e-5}]
    page = page_of(write_run(tmp_path, metrics))
    assert "1e-05" in page
    assert page.count('<span class="mark skip">skipped</span>') == 1


def test_changed_settings_stand_out(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (path / "config.toml").write_text(f"seed = {DEFAULTS['seed']}\n[train]\nepochs = 77\n[noise]\nargs = '<i>'\n")
    page = page_of(path)
    assert '<tr class="changed"><td><code>train.epochs</code></td><td><code>77</code></td></tr>' in page
    assert f"<tr><td><code>seed</code></td><td><code>{DEFAULTS['seed']}</code></td></tr>" in page
    assert "&lt;i&gt;" in page


def test_without_status_nothing_is_claimed(tmp_path: Path) -> None:
    path = write_run(tmp_path / "some-run", accuracies(0.1, 0.2))
    (path / "status.json").unlink()
    text = Outline(page_of(path)).text
    assert "some-run" in text
    assert "it is still running, or it was interrupted" in text
    assert "simulated on one machine" not in text
    assert "separate processes" not in text


def test_same_run_same_page(tmp_path: Path) -> None:
    path = write_run(tmp_path, rounds(10), four_clients())
    assert page_of(path) == page_of(path)


def test_refused_run_keeps_the_old_report(tmp_path: Path) -> None:
    old = page_of(write_run(tmp_path, accuracies(0.1, 0.2)))
    (tmp_path / "config.toml").write_text("not TOML")
    with pytest.raises(ReportError, match=r"config\.toml"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
    assert not list(tmp_path.glob(".*"))
