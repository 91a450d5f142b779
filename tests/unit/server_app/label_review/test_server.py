"""The server of a review: whom it answers, what it gives out and saves, and what it refuses."""

import http.client
import io
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from client_app.label_audit_files import SUMMARY
from client_app.mask_audit_files import MASKS
from client_app.mask_pictures import GIVEN_COLOUR
from client_app.word_importance import MarkedText, Word, write_words
from server_app.label_review.contents import ContentError, Contents
from server_app.label_review.decisions import DecisionFile, Verdict, read_decisions
from server_app.label_review.page import review_page
from server_app.label_review.review import LINES, Example, LabelReview, read_review
from server_app.label_review.server import ReviewServer
from tasks.settings import TaskSettings
from tests.label_reviews import DOUBTED, SAID, audited, review_of

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewServer]:
    review = review_of(tmp_path_factory.mktemp("review"))
    with ReviewServer(review, DecisionFile(review)) as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield running
        running.shutdown()


def ask(server: ReviewServer, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, bytes]:
    """Return status and content; headers with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    given = {
        "Host": f"127.0.0.1:{server.server_port}",
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }
    connection.putrequest(method, path, skip_host=True)
    for name, text in {**({} if content is None else {"Content-Length": str(len(content))}), **given}.items():
        connection.putheader(name, text)
    connection.endheaders(content)
    reply = connection.getresponse()
    found = reply.status, reply.read()
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    connection.close()
    return found


def decide(server: ReviewServer, body: object, **headers: str) -> tuple[int, bytes]:
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "Content_Type": "application/json"}
    return ask(server, f"{server.base}/decide", "POST", body, **{**own, **headers})


def test_it_listens_on_the_loopback_address_alone(server: ReviewServer):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path", ["/", "/x/", "//", "/favicon.ico", "/decisions.csv", "/../etc/passwd", "/%2e%2e/state"]
)
def test_without_the_secret_nothing_is_answered(server: ReviewServer, path: str):
    assert ask(server, path)[0] == 404
    assert ask(server, server.base[:-1] + "/")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "evil.example:{port}"])
def test_a_page_of_another_site_behind_a_renamed_address_is_refused(server: ReviewServer, host: str):
    assert ask(server, f"{server.base}/", Host=host.format(port=server.server_port))[0] == 403
    assert ask(server, f"{server.base}/", Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1:1", None])
def test_only_its_own_page_writes(server: ReviewServer, origin: str | None):
    sent = {"example": 0, "decision": "right", "label": ""}
    if origin is None:
        assert ask(server, f"{server.base}/decide", "POST", sent, Content_Type="application/json")[0] == 403
    else:
        assert decide(server, sent, Origin=origin)[0] == 403
        assert ask(server, f"{server.base}/state", Origin=origin)[0] == 403
    assert not server.file.path.exists()


def test_a_form_is_refused(server: ReviewServer):
    assert decide(server, {"example": 0, "decision": "right"}, Content_Type="text/plain")[0] == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 3000,
        [],
        {"example": "0", "decision": "right"},
        {"example": True, "decision": "right"},
        {"example": -1, "decision": "right"},
        {"example": 10**6, "decision": "right"},
        {"example": 0, "decision": "maybe"},
        {"example": 0, "decision": ["right"]},
        {"example": 0, "decision": "wrong", "label": "grey"},
        {"example": 0, "decision": "wrong", "label": 1},
    ],
)
def test_what_is_no_decision_is_refused_and_not_saved(server: ReviewServer, body: object):
    assert decide(server, body)[0] == 400
    assert not server.file.path.exists()


def test_a_long_body_is_not_read(server: ReviewServer):
    assert decide(server, b"x" * 5000)[0] == 413
    assert decide(server, b"{}", Content_Length="-1")[0] == 413


@pytest.mark.parametrize(
    "path",
    [
        *("image/../../audit", "image/..%2f..", "image/-1", "image/999", "image/1/2", "image/", "image/\u0663"),
        *("text/0", "fields/0", "data/dark/000.png", "image/0/../../../etc/passwd"),
    ],
)
def test_examples_are_asked_for_by_number_only(server: ReviewServer, path: str):
    from urllib.parse import quote

    assert ask(server, f"{server.base}/{quote(path, safe='/%')}")[0] == 404


def test_images_come_decoded_and_the_page_names_what_it_shows(server: ReviewServer):
    status, content = ask(server, f"{server.base}/image/0")
    assert (status, content[:8]) == (200, b"\x89PNG\r\n\x1a\n")
    status, page = ask(server, f"{server.base}/")
    assert status == 200
    assert server.review.examples[0].name.encode() in page
    assert b"http://" not in page.replace(b"http://www.w3.org", b"")
    assert b"https://" not in page


def test_an_image_that_is_gone_says_so_and_the_server_goes_on(server: ReviewServer):
    path = server.contents.path(3)
    assert path is not None
    content = path.read_bytes()
    path.unlink()
    assert ask(server, f"{server.base}/image/3")[0] == 404
    path.write_bytes(content[:40])
    assert ask(server, f"{server.base}/image/3")[0] == 404
    path.write_bytes(content)
    assert ask(server, f"{server.base}/image/3")[0] == 200


def test_decisions_are_saved_before_the_answer_and_others_are_told_only_where_this_person_has_decided(
    server: ReviewServer,
):
    review = server.review
    first, second = review.examples[:2]
    other = DecisionFile(review, "ada")
    other.decide({first.name: (Verdict.RIGHT, ""), second.name: (Verdict.RIGHT, "")})
    status, content = decide(server, {"example": 0, "decision": "wrong", "label": first.suggested})
    assert status == 200
    assert read_decisions(server.file.path)[first.name].label == first.suggested
    state = json.loads(content)
    assert state["decisions"] == {"0": ["wrong", first.suggested]}
    assert state["others"] == {"0": [f"ada: {first.given}"]}
    [found] = state["agreement"]
    assert (found["with"], found["both"], found["alike"]) == ("ada", 1, 0)
    other.path.write_text("nonsense\n1\n")
    status, content = decide(server, {"example": 0, "decision": None})
    state = json.loads(content)
    assert (status, state["decisions"], "decisions-ada.csv" in state["problem"]) == (200, {}, True)
    other.path.unlink()
    server.file.path.unlink()


@pytest.mark.parametrize(
    ("kind", "shown"), [("text-csv", "text"), ("table", "fields"), ("image-masks", "image"), ("image-csv", "image")]
)
def test_other_kinds_of_data_are_shown_too(tmp_path: Path, kind: str, shown: str):
    review = review_of(tmp_path, kind)
    with ReviewServer(review, DecisionFile(review)) as running:
        assert running.contents.kind == shown
        found = {"text": running.contents.text, "fields": running.contents.fields, "image": running.contents.image}[
            shown
        ](0)
        assert found
        assert review.examples[0].name.encode() in running.page
        if shown == "fields":
            assert {name for name, _ in found} == {"age", "dose", "unit"}  # type: ignore[misc]


def test_images_of_a_data_set_without_files_are_shown_as_the_model_sees_them(tmp_path: Path):
    from sklearn.datasets import load_digits

    examples = tuple(Example(str(number), "3", "3", 0.1, 0.9, False, {}) for number in (7, 9_999))
    review = LabelReview(tmp_path, examples, TaskSettings("digits"), "run", "0", "1")
    contents = Contents(review)
    place = contents._places["7"]
    known = review.task.train_examples().features[place].numpy().reshape(8, 8)
    shown = np.asarray(Image.open(io.BytesIO(contents.image(0)))).astype(float)
    assert np.corrcoef(shown.ravel(), known.ravel())[0, 1] > 0.999
    assert any(np.corrcoef(shown.ravel(), image.ravel())[0, 1] > 0.999 for image in load_digits().images)
    with pytest.raises(ContentError, match="not in the data set"):
        contents.image(1)


@pytest.mark.parametrize(
    ("said", "reading", "words", "warnings"),
    [
        ({}, DOUBTED, "", ()),  # masks, and versions that said nothing
        ({LINES: 3}, DOUBTED, "", ()),  # at least what is doubted
        ({LINES: 9}, 9, "", ()),
        ({LINES: 900, "warnings": ["a", "b"]}, 24, "", ("a", "b")),
        (
            {LINES: 9, "estimated_noise_rate": 0.255, "noise_rate_interval_90": [0.1, 0.49]},
            12,  # of 24
            "About 26 % of these labels are wrong; with 90 % confidence between 10 and 49 %.",
            (),
        ),
        ({LINES: "many", "noise_rate_interval_90": ["low"], "warnings": "none"}, DOUBTED, "", ()),
    ],
)
def test_a_review_knows_what_the_audit_says_first(
    tmp_path: Path, said: dict[str, object], reading: int, words: str, warnings: tuple[str, ...]
):
    folder = audited(tmp_path)
    known = json.loads((folder / SUMMARY).read_text())
    kept = {name: value for name, value in known.items() if name not in SAID}
    (folder / SUMMARY).write_text(json.dumps({**kept, **said}))
    review = read_review(folder)
    assert (review.reading, review.words, review.warnings) == (reading, words, warnings)


def test_the_words_that_speak_against_a_label_come_with_their_text(tmp_path: Path):
    review = review_of(tmp_path, "text-csv")
    text = Contents(review).text(2)
    first, last = text.split()[0], text.split()[-1]
    at = text.rindex(last)
    marks = (Word(0, first, 2.0), Word(at, last, 0.5))
    example = review.examples[2]
    write_words(review.folder, {example.name: MarkedText(example.given, example.suggested, marks)})
    with ReviewServer(review, DecisionFile(review)) as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        status, content = ask(running, f"{running.base}/text/2")
        _, plain = ask(running, f"{running.base}/text/3")
        running.shutdown()
    found = json.loads(content)
    assert (status, found["given"], found["other"]) == (200, example.given, example.suggested)
    assert found["pieces"] == [[first, 2.0], [text[len(first) : at], 0.0], [last, 0.5]]
    assert json.loads(plain)["pieces"] == [[Contents(review).text(3), 0.0]], "nothing is known of this one"


def test_a_text_that_has_changed_since_the_audit_has_no_marks(tmp_path: Path):
    review = review_of(tmp_path, "text-csv")
    name = review.examples[0].name
    write_words(review.folder, {name: MarkedText("dark", "bright", (Word(1, "elsewhere", 2.0),))})
    found = Contents(review).marked_text(0)
    assert found.pieces == [(Contents(review).text(0), 0.0)]


def masks_of(folder: Path) -> tuple[LabelReview, np.ndarray]:
    """Return the review of audited masks with the file of both masks, and the given ones in the order of the list."""
    review = review_of(folder, "image-masks")
    places = {name: at for at, name in enumerate(review.task.example_names(np.arange(len(review.examples))))}
    order = [places[example.name] for example in review.examples]
    given = review.task.train_labels()[order]
    suggested = given.copy()
    suggested[0, 0, :] = 1 - suggested[0, 0, :]
    np.savez_compressed(review.folder / MASKS, places=np.array(order), suggested=suggested, given=given)
    return review, given


def test_every_mask_is_drawn_over_its_image_and_what_is_doubted_of_it(tmp_path: Path):
    review, given = masks_of(tmp_path)
    contents = Contents(review)
    assert contents.has_outlines
    for number in (0, len(given) - 1):  # the last one is not doubted
        shown = np.asarray(Image.open(io.BytesIO(contents.image(number)))).astype(int)
        assert shown.shape == (256, 512, 3)
        yellow = (np.abs(shown - GIVEN_COLOUR).sum(2) < 60)[:, 256:]
        edges = np.argwhere(np.kron(given[number], np.ones((16, 16), int)))
        (top, left), (bottom, right) = edges.min(0), edges.max(0)
        assert yellow[(top + bottom) // 2, [left, right]].all()
        assert not yellow[(top + bottom) // 2, (left + right) // 2]
    small = Image.open(io.BytesIO(contents.thumbnail(0)))
    assert small.size == (112, 112), "the half with the outlines"
    assert (np.abs(np.asarray(small.convert("RGB")).astype(int) - GIVEN_COLOUR).sum(2) < 160).any()


def test_masks_of_an_earlier_audit_are_shown_as_far_as_it_has_made_pictures(tmp_path: Path):
    review, _ = masks_of(tmp_path)
    (review.folder / MASKS).unlink()
    assert not Contents(review).has_outlines
    assert Image.open(io.BytesIO(Contents(review).image(0))).size == (16, 16)


def test_a_damaged_file_of_masks_is_said(tmp_path: Path):
    review, _ = masks_of(tmp_path)
    (review.folder / MASKS).write_bytes(b"PK")
    with pytest.raises(ContentError, match="does not hold the masks"):
        Contents(review).image(0)


def test_the_page_says_which_rounds_model_judged_where_that_is_not_the_last(tmp_path: Path):
    folder = audited(tmp_path)
    known = json.loads((folder / SUMMARY).read_text())
    assert (read_review(folder).judge, read_review(folder).model_version) == ("", "winnow pilot round 5")
    (folder / SUMMARY).write_text(json.dumps({**known, "model_round": 2}))
    review = read_review(folder)
    assert review.model_version == "winnow pilot round 2"
    page = review_page(review, Contents(review), "zoe", "/x", "n")
    assert "The model of round 2 of 5 judged, which the run keeps as its best." in page
