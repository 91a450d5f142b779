"""The work on audited labels from a run to a second one, and its page in a real browser."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from client_app.label_audit_files import read_columns
from client_app.word_importance import MarkedText, Word, write_words
from server_app.cli import main
from server_app.label_review.decisions import DecisionFile, Verdict, read_decisions
from server_app.label_review.review import read_review
from server_app.label_review.server import ReviewServer
from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT
from tests.integration.conftest import Play
from tests.integration.test_site_data import settings_for
from tests.label_reviews import DOUBTED, READING, audited
from tests.site_data import CLASSES, image_folder

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def planted(data: Path) -> dict[str, str]:
    """Write images of which each fifth lies in the wrong folder; return the right class of each file's name."""
    image_folder(data, 60)
    truth = {path.name: path.parent.name for path in data.glob("*/*.png")}
    for name in sorted(truth)[::5]:
        wrong = CLASSES[1 - CLASSES.index(truth[name])]
        (data / truth[name] / name).rename(data / wrong / name)
    image_folder(data / "test", 20, seed=1)
    return truth


def wrong_labels(data: Path, truth: dict[str, str]) -> int:
    return sum(path.parent.name != truth[path.name] for path in data.glob("*/*.png"))


def test_from_planted_errors_to_corrected_labels_and_a_second_run(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, new = tmp_path / "data", tmp_path / "new"
    truth = planted(data)
    assert wrong_labels(data, truth) == 12
    first = play(**settings_for("image-folder", data))
    folders = []
    for folder in (str(first.path / "clients" / str(client)) for client in range(4)):
        columns = read_columns(Path(folder) / "label-audit.csv")
        lines = ["id,decision,label"]
        for name, given, suggested in zip(columns["id"], columns["given"], columns["suggested"], strict=True):
            if given != suggested:  # a person looks at those and says what they are
                right = truth[name.split("/")[-1]]
                lines.append(f"{name},{'right' if right == given else 'wrong'},{'' if right == given else right}")
        if len(lines) == 1:  # nothing is doubted there
            continue
        folders.append(folder)
        (tmp_path / "answers.csv").write_text("\n".join(lines) + "\n")
        assert main(["audit", "import", folder, str(tmp_path / "answers.csv")]) == 0
    assert main(["audit", "apply", *folders, "--output", str(new)]) == 0
    shown = capsys.readouterr().out
    assert f"task.data-path={new}" in shown
    assert wrong_labels(data, truth) == 12  # the originals stay
    left = wrong_labels(new, truth)
    assert left <= 3
    assert f"{12 - left} changed" in shown
    second = play(**settings_for("image-folder", new))
    assert second.metrics[-1]["accuracy"] >= first.metrics[-1]["accuracy"]
    estimates = [
        sum(
            json.loads((run.path / f"clients/{client}/label-audit-summary.json").read_text())["look_at_first"]
            for client in range(4)
        )
        for run in (first, second)
    ]
    assert estimates[1] < estimates[0] / 2


def test_the_command_serves_until_it_is_interrupted_and_says_what_was_saved(tmp_path: Path) -> None:
    folder = audited(tmp_path)
    name = read_review(folder).examples[0].name
    command = [
        sys.executable,
        "-m",
        "server_app.cli",
        "audit",
        "open",
        str(folder),
        "--no-browser",
        "--reviewer",
        "ada",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        DecisionFile(read_review(folder), "bob").decide({name: (Verdict.RIGHT, "")})
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert f"0 of 24 labels are decided: {folder / 'decisions-ada.csv'}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["open", "nowhere"], "there is no folder nowhere"),
        (["open", "audit", "--reviewer", "a/b"], "letters, digits"),
        (["open", "audit", "--port", "99999"], "--port 99999"),
        (["export", "audit", "--format", "cvat", "--data", "nowhere"], "there is no such folder"),
        (["import", "audit", "nowhere.json"], "cannot read nowhere.json"),
        (["import", "audit", "other.json"], "names no example of this audit"),
        (["apply", "audit", "--output", "new"], "nobody has decided"),
    ],
)
def test_a_mistake_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    audited(tmp_path)
    (tmp_path / "other.json").write_text(json.dumps({"classes": [], "labels": {"x": "dark"}}))
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ReviewServer]:
    review = read_review(audited(tmp_path, getattr(request, "param", "image-folder")))
    with ReviewServer(review, DecisionFile(review)) as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield running
        running.shutdown()


def opened(browser: Browser, server: ReviewServer, width: int = 1280, dark: bool = False) -> None:
    browser.console.clear()
    browser.asked.clear()
    browser.open(server.url, width, dark=dark)
    browser.until("document.querySelectorAll('#list li').length")


def saved(browser: Browser) -> None:
    browser.until("document.getElementById('saved').textContent", lambda text: text == "saved")


@needs_browser
def test_labels_are_decided_by_keys(browser: Browser, server: ReviewServer) -> None:
    opened(browser, server)
    examples = server.review.examples
    assert browser.run("document.querySelectorAll('#list li').length") == DOUBTED
    assert browser.run("document.querySelector('#name').textContent") == examples[0].name
    for key in ("r", "w", "u", "n"):
        browser.press(key)
        saved(browser)
    browser.press(str(1 + CLASSES.index(examples[4].suggested)))
    saved(browser)
    browser.press("z")  # takes the last one back
    browser.until("document.getElementById('bar').ariaValueNow", lambda now: now == "4")
    saved(browser)
    made = read_decisions(server.file.path)
    assert [(each.verdict, each.label) for each in made.values()] == [
        (Verdict.RIGHT, ""),
        (Verdict.WRONG, examples[1].suggested),
        (Verdict.UNSURE, ""),
        (Verdict.WRONG, ""),
    ]
    assert [*made] == [each.name for each in examples[:4]]
    browser.press("ArrowLeft")
    assert browser.run("document.querySelector('#name').textContent") == examples[3].name
    opened(browser, server)  # again: it goes on where it was
    assert browser.run("document.querySelector('#name').textContent") == examples[4].name
    assert browser.console == []
    assert {url.split("/")[2] for url in browser.asked if url.startswith("http")} == {f"127.0.0.1:{server.server_port}"}


@needs_browser
def test_filters_order_and_the_hidden_opinion(browser: Browser, server: ReviewServer) -> None:
    opened(browser, server)

    def change(element: str, value: str) -> None:
        at = f"document.getElementById('{element}')"
        browser.run(f"{at}.value = '{value}'; {at}.dispatchEvent(new Event('change'))")

    names = "[...document.querySelectorAll('#list button')].map(each => each.title)"
    said = browser.run("document.body.innerText").replace("\u00a0", " ")
    assert "Warning. The class '<b>' is much worse." in said
    assert "About 26 % of these labels are wrong; with 90 % confidence between 18 and 35 %." in said
    change("show", "reading")
    assert browser.run(names) == [each.name for each in server.review.examples[:READING]]
    change("show", "all")
    assert browser.run(names) == [each.name for each in server.review.examples]
    change("order", "name")
    assert browser.run(names) == sorted(each.name for each in server.review.examples)
    change("pair", "0 1")
    assert browser.run(names) == sorted(e.name for e in server.review.examples if (e.given, e.suggested) == CLASSES)
    browser.run("document.getElementById('blind').click()")
    assert "Model suggests" not in browser.run("document.getElementById('card').innerText")
    browser.press("w")  # which class, nobody has said
    assert browser.run("document.getElementById('choices').className").endswith("asked-for")
    assert not server.file.path.exists()
    assert browser.console == []


@needs_browser
@pytest.mark.parametrize("server", ["text-csv"], indirect=True)
def test_words_that_speak_against_a_label_are_marked_unless_the_opinion_is_hidden(
    browser: Browser, server: ReviewServer
) -> None:
    example, text = server.review.examples[0], server.contents.text(0)
    last = text.split()[-1]
    at = text.rindex(last)
    marks = (Word(0, text.split()[0], 0.5), Word(at, last, 2.0))
    write_words(server.review.folder, {example.name: MarkedText(example.given, example.suggested, marks)})
    opened(browser, server)
    browser.until("document.querySelector('#seen p.text') !== null")
    assert browser.run("document.querySelector('#seen p.text').textContent") == text
    said = browser.run("[...document.querySelectorAll('#seen mark')].map(each => [each.textContent, each.className])")
    assert said == [[text.split()[0], ""], [last, "strong"]]
    title = browser.run("document.querySelector('#seen mark.strong').title")
    assert title == f"“{last}” speaks for {example.suggested} and against {example.given} (2.00)"
    assert browser.run("document.getElementById('legend').innerText").startswith("Marked: without these words")
    browser.run("document.getElementById('blind').click()")
    browser.until("document.querySelector('#seen p.text') !== null && !document.querySelector('#seen mark')")
    assert browser.run("document.getElementById('legend').hidden")
    browser.run("document.getElementById('blind').click()")
    browser.until("document.querySelectorAll('#seen mark').length", lambda count: count == 2)
    browser.press("ArrowRight")  # of the next text nothing is known
    browser.until("document.querySelector('#seen p.text') !== null && !document.querySelector('#seen mark')")
    assert browser.console == []


@needs_browser
def test_what_cannot_be_saved_is_said_and_saved_later(browser: Browser, server: ReviewServer) -> None:
    opened(browser, server)
    server.file.path.mkdir()  # nothing can be written there
    browser.press("r")
    browser.until("document.getElementById('alarm').hidden", lambda hidden: hidden is False)
    server.file.path.rmdir()
    browser.press("u")
    saved(browser)
    assert browser.run("document.getElementById('alarm').hidden")
    assert [each.verdict for each in read_decisions(server.file.path).values()] == [Verdict.RIGHT, Verdict.UNSURE]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("server", ["image-folder", "text-csv", "table", "image-masks"], indirect=True)
def test_it_fits_a_phone_in_light_and_dark(browser: Browser, server: ReviewServer, dark: bool) -> None:
    opened(browser, server, 390, dark)
    browser.until("document.querySelector('#seen img, #seen p.text, #seen table') !== null")
    browser.until("[...document.images].every(each => each.complete)")
    assert browser.run("document.documentElement.scrollWidth") == 390
    over = (
        "[...document.querySelectorAll('main *')]"
        ".filter(each => each.getClientRects().length && !each.closest('#seen') && "
        "each.getBoundingClientRect().right > 391).map(each => each.outerHTML.slice(0, 80))"
    )
    assert browser.run(over) == []
    luminance = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    assert (browser.run(luminance) < 200) is dark
    assert browser.console == []
