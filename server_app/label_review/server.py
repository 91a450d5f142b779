"""Review server: one page on this machine, for whoever holds its address; each decision is saved before it is answered.

Every user of a machine reaches its loopback ports, and so does every page of a browser. So the path begins with a
secret; a request must name this server as its host, which a page of another site behind a renamed address cannot; and
only this server's own page may send decisions. Examples are asked for by number, never by path.
"""

import hmac
import json
import secrets
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from server_app.label_review.contents import ContentError, Contents
from server_app.label_review.decisions import DecisionFile, Verdict, agreement, all_decisions, person
from server_app.label_review.page import review_page, state
from server_app.label_review.review import LabelReview, ReviewError
from tasks.files import WriteError

HOST = "127.0.0.1"
MOST_BYTES = 4096
"""Bytes that a decision may have."""
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Answer = tuple[HTTPStatus, str, bytes]
PLAIN, JSON = "text/plain; charset=utf-8", "application/json"


class ReviewServer(ThreadingHTTPServer):
    """Serves the review of one person on the loopback address.

    Parameters
    ----------
    review
        What is reviewed.
    file
        Where the decisions go.
    port
        Port; 0 = one that is free.

    Raises
    ------
    OSError
        If the port is taken.
    """

    daemon_threads = True

    def __init__(self, review: LabelReview, file: DecisionFile, port: int = 0) -> None:
        self.review, self.file, self.contents = review, file, Contents(review)
        self.token, self.nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(16)
        self.lock = Lock()
        super().__init__((HOST, port), _Handler)
        self.page = review_page(review, self.contents, file.reviewer, self.base, self.nonce).encode()

    @property
    def base(self) -> str:
        """First part of every path."""
        return f"/{self.token}"

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}{self.base}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may call this server."""
        return tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def state(self) -> str:
        """Return decisions and agreement as JSON."""
        problem = ""
        try:
            found = all_decisions(self.review)
        except ReviewError as error:  # somebody else's file; what is decided here is saved all the same
            found, problem = {}, str(error)
        own = self.file.current
        others = {path: made for path, made in found.items() if path != self.file.path}
        names = {path: person(path, made) for path, made in others.items()}
        every = [agreement(own, made, (self.file.reviewer, names[path])) for path, made in others.items()]
        theirs = {name: [(names[path], made[name]) for path, made in others.items() if name in made] for name in own}
        shown = {name: opinions for name, opinions in theirs.items() if opinions}
        return state(own, self.review, [each for each in every if each.both], shown, problem)

    def decide(self, content: object) -> None:
        """Save a decision that the page has sent.

        Raises
        ------
        ReviewError
            If it is none.
        WriteError
            If it cannot be saved.
        """
        number = content.get("example") if isinstance(content, dict) else None
        if not isinstance(content, dict) or type(number) is not int or not 0 <= number < len(self.review.examples):
            raise ReviewError("expected the number of an example, a decision and a label")
        verdict, label = content.get("decision"), content.get("label", "")
        if not isinstance(label, str) or (verdict is not None and verdict not in [*Verdict]):
            raise ReviewError(f"{verdict!r} is no decision; expected {', '.join(Verdict)}, or null to take it back")
        with self.lock:
            name = self.review.examples[number].name
            self.file.decide({name: None if verdict is None else (Verdict(verdict), label)})

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave a broken connection alone: the browser asks again."""


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "winnow", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer with the page, its state, or what an example shows."""
        self._answer(self._refusal() or self._found())

    def do_POST(self) -> None:
        """Save a decision."""
        self._answer(self._refusal(writes=True) or self._decided())

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: addresses hold the secret."""

    def _refusal(self, writes: bool = False) -> Answer | None:
        """Return why the request is refused, None if it is not."""
        token = self.path.split("/")[1] if self.path.startswith("/") else ""
        origin, host = self.headers.get("Origin"), self.headers.get("Host", "")
        own = [f"http://{each}" for each in self.server.hosts]
        if not hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode()):
            return HTTPStatus.NOT_FOUND, PLAIN, b"The address printed by winnow audit open is needed."
        if host not in self.server.hosts or (origin is not None and origin not in own) or (writes and origin is None):
            return HTTPStatus.FORBIDDEN, PLAIN, b"This page answers requests of its own only."
        if writes and self.headers.get_content_type() != JSON:
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, PLAIN, b"JSON is expected."
        return None

    def _found(self) -> Answer:
        words = self.path.partition("?")[0].removeprefix(self.server.base).strip("/").split("/")
        if words == [""]:
            return HTTPStatus.OK, "text/html; charset=utf-8", self.server.page
        if words == ["state"]:
            return HTTPStatus.OK, JSON, self.server.state().encode()
        kind, _, number = "/".join(words).partition("/")
        if not (number.isascii() and number.isdecimal() and len(number) < 10 and kind in SHOWN):
            return HTTPStatus.NOT_FOUND, PLAIN, b"There is no such page."
        return self._shown(kind, int(number))

    def _shown(self, kind: str, number: int) -> Answer:
        if number >= len(self.server.review.examples) or self.server.contents.kind != SHOWN[kind]:
            return HTTPStatus.NOT_FOUND, PLAIN, b"There is no such example."
        try:
            return _content(self.server.contents, kind, number)
        except ContentError as error:
            return HTTPStatus.NOT_FOUND, PLAIN, str(error).encode(errors="replace")

    def _decided(self) -> Answer:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 10 and int(length) <= MOST_BYTES):
            self.close_connection = True
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, PLAIN, b"A decision is shorter, and says its length."
        if self.path != f"{self.server.base}/decide":
            self.close_connection = True
            return HTTPStatus.NOT_FOUND, PLAIN, b"There is no such page."
        try:
            self.server.decide(json.loads(self.rfile.read(int(length))))
        except (ReviewError, ValueError, RecursionError) as error:
            return HTTPStatus.BAD_REQUEST, PLAIN, str(error).encode(errors="replace")
        except WriteError as error:
            return HTTPStatus.INSUFFICIENT_STORAGE, PLAIN, str(error).encode(errors="replace")
        return HTTPStatus.OK, JSON, self.server.state().encode()

    def _answer(self, answer: Answer) -> None:
        status, kind, content = answer
        if status >= HTTPStatus.BAD_REQUEST:  # a body may be left unread
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY.format(nonce=self.server.nonce))
        for name, text in HEADERS.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)


SHOWN = {"image": "image", "thumbnail": "image", "text": "text", "fields": "fields"}
"""What can be asked of an example, and for which kind of contents."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _content(contents: Contents, kind: str, number: int) -> Answer:
    if kind in ("image", "thumbnail"):
        image = contents.thumbnail(number) if kind == "thumbnail" else contents.image(number)
        return HTTPStatus.OK, "image/png" if image.startswith(b"\x89PNG") else "image/jpeg", image
    found = asdict(contents.marked_text(number)) if kind == "text" else contents.fields(number)
    return HTTPStatus.OK, JSON, json.dumps(found).encode()
