"""A SuperLink that holds whatever replies a test wants, over real HTTP, and counts the bytes that are taken from it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid
from google.protobuf.message import Message as Proto

from tests.messages import instruction as train

PART = 2**16


class Shelf:
    """Replies by the id of the message they answer, their objects, and what has been taken and confirmed."""

    def __init__(self) -> None:
        self.replies: dict[str, PullAppMessagesResponse] = {}
        self.objects: dict[str, bytes] = {}
        self.announced: set[str] = set()
        self.sent = 0
        self.confirmed: list[str] = []
        self.headers: dict[str, str] = {}

    def put(self, asked: str, content: RecordDict) -> str:
        """Put a reply to message ``asked`` there as an honest node does, and return its id."""
        reply = Message(content, reply_to=instruction(asked))
        name = reply.object_id
        reply.metadata.__dict__["_message_id"] = name
        self.objects |= {key: part.deflate() for key, part in get_all_nested_objects(reply).items()}
        self.list(asked, reply, get_object_tree(reply))
        return name

    def list(self, asked: str, reply: Message, tree: ObjectTree) -> None:
        """Let a reply stand for ``asked``, with any tree of objects."""
        proto = message_to_proto(remove_content_from_message(reply))
        self.replies[asked] = PullAppMessagesResponse(messages_list=[proto], message_object_trees=[tree])

    def answer(self, kind: str, body: bytes) -> Proto:
        """Return what the SuperLink answers to a request."""
        if kind == "pull-messages":
            asked = PullAppMessagesRequest.FromString(body).message_ids
            return self.replies.get(asked[0], PullAppMessagesResponse())
        if kind == "pull-object":
            name = PullObjectRequest.FromString(body).object_id
            there = name in self.objects
            content = self.objects.get(name, b"")
            found = there or name in self.announced
            return PullObjectResponse(object_found=found, object_available=there, object_content=content)
        request = ConfirmMessageReceivedRequest.FromString(body)
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedRequest()


def instruction(name: str) -> Message:
    """A message to node 1 with this id."""
    message = train(1)
    message.metadata.__dict__["_message_id"] = name
    return message


def handler(shelf: Shelf) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            content = shelf.answer(self.path.rpartition("/")[2], body).SerializeToString()
            self.send_response(200)
            size = {} if "connection" in shelf.headers else {"content-length": str(len(content))}
            for name, value in {**size, **shelf.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for start in range(0, len(content), PART):
                    shelf.sent += self.wfile.write(content[start : start + PART])
            except OSError:  # the other side has heard enough
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def superlink() -> Iterator[tuple[Shelf, Callable[[], HttpGrid]]]:
    """Serve a shelf while the block runs; the function makes grids that are connected to it."""
    shelf = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(shelf))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    grids: list[HttpGrid] = []

    def connect() -> HttpGrid:
        grids.append(HttpGrid(f"127.0.0.1:{server.server_port}", insecure=True, token="any"))
        grids[-1].set_run(Run.create_empty(1))
        return grids[-1]

    try:
        yield shelf, connect
    finally:
        for grid in grids:
            grid.close()
        server.shutdown()
        server.server_close()
