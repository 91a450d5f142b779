"""The report of a run in a real browser: nothing is cut or refused, in light and dark, on a phone and on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from server_app.report import write_report
from server_app.storage.audit_scores import Relabelling, Score, Scores, write_scores
from server_app.storage.class_files import BEST, LAST, class_table, write_classes
from server_app.storage.doubted_labels import Doubt, write_doubts
from tasks.metrics import server_metrics
from tests.browser import CHROMIUM, Browser
from tests.run_directories import write_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
CLIENTS, ROUNDS = 12, 20
CUT = """[...document.querySelectorAll("figure svg text")].filter((text) => {
  const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
  return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 2 ||
    inner.bottom > outer.bottom + 2; }).map((text) => text.textContent)"""
WIDE = """[...document.querySelectorAll("main *")].filter((one) => !one.closest(".scroll") &&
  one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.tagName + " " + one.textContent.slice(0, 40))"""
COLUMN = """((label, column) => [...document.querySelectorAll(`[aria-label="${label}"] tbody tr`)].map(
  (row) => row.cells[column].textContent.trim()))"""
HEAD = "document.querySelectorAll('[aria-label=\"Clients\"] thead th')"


def full_run(path: Path) -> Path:
    """Write a run with all that a report shows: classes, roles, weights, audits, doubts and set-aside replies."""
    rounds = [
        {
            "round": n,
            "accuracy": min(0.9, 0.1 + 0.08 * n) if n < 18 else 0.15,
            "macro-f1": 0.05 + 0.03 * n,
            "loss": 2.3 / (1 + n),
            "validation_accuracy": 0.1 + 0.04 * n,
            "validation_loss": 2.4 / (1 + n),
            "train_loss": 2.0,
            "seconds": 1.5,
            "quarantined": 0,
            "selected": CLIENTS,
        }
        for n in range(ROUNDS + 1)
    ]
    lines: list[dict[str, Any]] = [
        {"round": 0, "client": i, "examples": 900 + i, "noise_rate": ((5 * i) % CLIENTS) / 20, "classes": [5] * 10}
        for i in range(CLIENTS)
    ]
    for n in range(1, ROUNDS + 1):
        for i in range(CLIENTS):
            role = {} if n < 5 else {"role": "noisy" if i > 5 else "clean", "posterior": i / 12}
            set_aside = {"weight": None, "quarantine": "the reply has NaN"} if (n, i) == (7, 3) else {}
            lines.append(
                {
                    "round": n,
                    "client": i,
                    "weight": (1 + i) / 78,
                    "distance": 1.0,
                    "train_loss": 2.0 / n,
                    **role,
                    **set_aside,
                }
            )
    words = {"model": "a-model, 1,000 parameters", "wrong_labels": "Labels made wrong on purpose: about 27 % of them."}
    write_run(path, rounds, lines, rounds=ROUNDS, best_round=11, start_seconds=6.5, test_examples=2000, **words)
    labels = torch.arange(10).repeat(20)
    counted = server_metrics(torch.eye(10)[(labels + (torch.arange(200) % 7 == 0)) % 10], labels)[1]
    names = [f"a class with a long name {n}" for n in range(10)]
    for model in (LAST, BEST):
        write_classes(path, model, class_table(ROUNDS, names, counted))
    right = Relabelling(right=19, fixed=3, damaged=1, differing=4, differing_right=3)
    write_scores(path, Scores(tuple(Score(i, 20, 3, 0.1, 0.9, 0.7, 0.5, 0.3, right, right) for i in range(CLIENTS))))
    write_doubts(
        path, [Doubt(i, f"images/{'x' * 40}/{i}.png", names[i], names[1], names[1], 0.9, DOT) for i in range(6)]
    )
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("matplotlib")
    path = write_report(full_run(tmp_path_factory.mktemp("run")))
    assert path.stat().st_size < 350_000
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_or_refused(page: str, browser: Browser, width: int, dark: bool) -> None:
    browser.console.clear()
    browser.asked.clear()
    browser.open(page, width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []
    assert browser.run(CUT) == []
    assert browser.run("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert browser.run("document.querySelectorAll('figure svg').length") == 8
    assert browser.console == []
    assert [url for url in browser.asked if not url.startswith("data:")] == [page]
    brightness = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => +a + +b)")
    assert (brightness < 200) is dark
    ink = browser.run("getComputedStyle(document.querySelector('figure svg text')).fill.match(/\\d+/g).map(Number)")
    assert (sum(ink) > 400) is dark


def test_a_click_on_a_heading_sorts_and_a_third_one_restores(page: str, browser: Browser) -> None:
    browser.open(page)
    shown = [browser.run(f"{COLUMN}('Clients', 3)")]
    place = 3
    assert "Wrong labels" in browser.run(f"{HEAD}[{place}].textContent")
    for order in ("ascending", "descending", None):
        browser.run(f"{HEAD}[{place}].querySelector('button').click()")
        assert browser.run(f"{HEAD}[{place}].getAttribute('aria-sort')") == order
        shown.append(browser.run(f"{COLUMN}('Clients', 3)"))
    by_number = sorted(shown[0], key=lambda text: float(text.split()[0]))
    assert shown[0] != by_number
    assert shown[1:] == [by_number, by_number[::-1], shown[0]]
    browser.run(f"{HEAD}[0].querySelector('button').click()")
    assert browser.run(f"{COLUMN}('Clients', 0)") == [str(i) for i in range(CLIENTS)], "numbers, not texts: 2 before 10"


def test_paper_has_results_and_no_settings_and_cuts_nothing(page: str, browser: Browser) -> None:
    browser.open(page, dark=True)
    visible = (
        "(selector) => { const found = document.querySelector(selector); return !!found.getClientRects().length; }"
    )
    assert browser.run(f"({visible})('.settings')")
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    try:
        assert not browser.run(f"({visible})('.settings')")
        assert browser.run(f"({visible})('figure svg')")
        assert browser.run("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run(CUT) == []
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
