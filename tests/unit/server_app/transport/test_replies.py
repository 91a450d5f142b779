"""A reply that is too large is refused before its bytes are read; the SuperLink is real HTTP in a thread."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.superlink.grid.http_grid import HttpGrid
from google.protobuf.message import Message as Proto

from server_app.transport.replies import ALLOWANCE, PIECE, ReplyCollector, SizeLimitUnavailableError, reply_limit
from tasks.protocol import Mode
from tests.superlink import Shelf, instruction, superlink

Connect = Callable[[], HttpGrid]
MODEL = 3 * PIECE + 12
LIMIT = MODEL + ALLOWANCE


@pytest.fixture
def link() -> Iterator[tuple[Shelf, Connect]]:
    with superlink() as found:
        yield found


def pull(grid: Any, limits: Mapping[str, int], deadline: float = float("inf")) -> tuple[list[Message], dict[str, str]]:
    """Look once."""
    return ReplyCollector(grid, Mode.DEPLOYMENT).look(limits, deadline)


def some(size: int) -> npt.NDArray[np.uint8]:
    """Bytes of which no two pieces are equal."""
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


def content(size: int, **metrics: float | list[float]) -> RecordDict:
    flat = Array(some(size))
    return RecordDict({"arrays": ArrayRecord({"flat": flat}), "metrics": MetricRecord({"num-examples": 3, **metrics})})


def training(arrays: RecordDict, kind: str = "train") -> Message:
    return Message(arrays, dst_node_id=1, message_type=kind)


def test_a_reply_of_the_size_of_the_model_comes_whole(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    name = shelf.put("asked", content(MODEL))
    [reply], refused = pull(connect(), {"asked": LIMIT})
    np.testing.assert_array_equal(reply.content.array_records["arrays"]["flat"].numpy(), some(MODEL))
    assert not refused
    assert shelf.confirmed == [name]


def test_equal_pieces_are_sent_once_and_are_no_reason_to_refuse(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    zeros = RecordDict({"arrays": ArrayRecord({"flat": Array(np.zeros(MODEL, np.uint8))})})
    shelf.put("asked", zeros)
    [reply], refused = pull(connect(), {"asked": LIMIT})
    assert len(reply.content.array_records["arrays"]["flat"].data) > MODEL
    assert not refused
    assert shelf.sent < MODEL


@pytest.mark.parametrize("size", [4 * PIECE, 40 * PIECE])
def test_a_larger_one_is_refused_before_it_is_read_and_removed(link: tuple[Shelf, Connect], size: int) -> None:
    shelf, connect = link
    name = shelf.put("large", content(size))
    shelf.put("good", content(MODEL))
    replies, refused = pull(connect(), {"large": LIMIT, "good": LIMIT})
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["good"]
    assert list(refused) == ["large"]
    assert "the reply is too large" in refused["large"]
    assert f"expected {LIMIT:,} at most" in refused["large"]
    assert name in shelf.confirmed


def test_what_is_larger_than_a_piece_is_not_even_begun(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    shelf.put("asked", content(10))
    for name in shelf.objects:
        shelf.objects[name] = b"x" * 20 * PIECE
    _, refused = pull(connect(), {"asked": 100 * PIECE})
    assert "bytes at once" in refused["asked"]
    assert shelf.sent < 20 * PIECE, "two objects are asked for at once, and the sockets hold a few megabytes of each"


def test_an_answer_to_a_question_has_the_allowance_only(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    shelf.put("wide", content(1, losses=[0.1] * 200_000))
    shelf.put("fits", content(1, losses=[0.1] * 2000))
    replies, refused = pull(connect(), dict.fromkeys(("wide", "fits"), ALLOWANCE))
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["fits"]
    assert list(refused) == ["wide"]


def test_the_limit_is_what_was_sent_for_training_and_the_allowance_for_all_else() -> None:
    sent = content(MODEL)
    assert 0 < reply_limit(training(sent)) - (MODEL + ALLOWANCE) < 200  # names and headers
    assert reply_limit(training(sent, "train.again")) == reply_limit(training(sent))
    for kind in ("query.profile", "query.method", "evaluate"):
        assert reply_limit(training(sent, kind)) == ALLOWANCE


def deflated(shelf: Shelf, kind: str, children: list[str], body: bytes) -> str:
    """Put an object there as a dishonest node writes it, and return its id."""
    whole = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
    name = get_object_id(whole)
    shelf.objects[name] = whole
    return name


def test_a_piece_that_is_listed_a_thousand_times_is_not_multiplied(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    piece = deflated(shelf, "ArrayChunk", [], b"0" * PIECE)
    table = {"dtype": "uint8", "shape": [9], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 1000}
    array = deflated(shelf, "Array", [piece], json.dumps(table).encode())
    record = deflated(shelf, "ArrayRecord", [array], json.dumps({"flat": array}).encode())
    whole = deflated(shelf, "RecordDict", [record], json.dumps({"arrays": record}).encode())
    reply = Message(RecordDict(), reply_to=instruction("asked"))
    message = deflated(shelf, "Message", [whole], b"")
    reply.metadata.__dict__["_message_id"] = message
    tree = ObjectTree(object_id=piece)
    for name in (array, record, whole, message):
        tree = ObjectTree(object_id=name, children=[tree])
    shelf.list("asked", reply, tree)
    replies, refused = pull(connect(), {"asked": LIMIT})
    assert not replies
    assert refused["asked"] == f"the reply is too large: it lists 1,000 pieces of {PIECE:,} bytes"


def test_an_object_that_is_listed_twice_is_refused(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    shelf.put("asked", content(10))
    [tree] = shelf.replies["asked"].message_object_trees
    tree.children.append(tree.children[0])
    assert pull(connect(), {"asked": LIMIT}) == ([], {"asked": "the reply lists an object twice"})


def test_a_reply_of_which_the_rest_never_comes_is_given_up_at_the_deadline(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    shelf.put("stuck", content(10))
    shelf.put("good", content(20))
    shelf.announced = set(shelf.objects)
    [tree] = shelf.replies["stuck"].message_object_trees
    del shelf.objects[tree.object_id]
    replies, refused = pull(connect(), {"stuck": LIMIT, "good": LIMIT}, deadline=0.0)
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["good"]
    assert refused == {"stuck": "the reply was announced, but not uploaded in time"}


def test_a_reply_of_which_a_part_is_gone_is_refused_at_once(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    name = shelf.put("asked", content(10))
    del shelf.objects[name]
    replies, refused = pull(connect(), {"asked": LIMIT})
    assert not replies
    assert refused == {"asked": "a part of the reply is not at the SuperLink, and will not come"}
    assert shelf.confirmed == [name]


def test_what_is_no_message_is_refused(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    reply = Message(RecordDict(), reply_to=instruction("asked"))
    name = deflated(shelf, "ConfigRecord", [], b"")
    reply.metadata.__dict__["_message_id"] = name
    shelf.list("asked", reply, ObjectTree(object_id=name))
    assert pull(connect(), {"asked": LIMIT})[1] == {
        "asked": "malformed reply: TypeError: expected a message, got ConfigRecord"
    }


def test_half_a_reply_holds_up_no_other_and_is_completed_in_a_later_look(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    name = shelf.put("slow", content(MODEL))
    shelf.announced = set(shelf.objects)
    late = {key: shelf.objects.pop(key) for key in sorted(shelf.objects)[::2]}
    shelf.put("good", content(20))
    collector = ReplyCollector(connect(), Mode.DEPLOYMENT)
    replies, refused = collector.look({"slow": LIMIT, "good": LIMIT})
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["good"]
    assert collector.look({"slow": LIMIT}) == ([], {})
    shelf.replies.clear()  # the SuperLink announces a reply once
    shelf.objects |= late
    [reply], refused = collector.look({"slow": LIMIT})
    np.testing.assert_array_equal(reply.content.array_records["arrays"]["flat"].numpy(), some(MODEL))
    assert not refused
    assert shelf.confirmed[-1] == name


def test_what_comes_after_a_refusal_is_not_read_either(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    huge = deflated(shelf, "ArrayChunk", [], b"0" * 40 * PIECE)
    wrong = deflated(shelf, "ArrayChunk", [], b"1" * 2 * PIECE)
    reply = Message(RecordDict(), reply_to=instruction("asked"))
    reply.metadata.__dict__["_message_id"] = deflated(shelf, "Message", [huge, wrong], b"")
    children = [ObjectTree(object_id=huge), ObjectTree(object_id=wrong)]
    shelf.list("asked", reply, ObjectTree(object_id=reply.metadata.message_id, children=children))
    answer = shelf.answer

    def huge_comes_last(kind: str, body: bytes) -> Proto:
        if kind == "pull-object" and PullObjectRequest.FromString(body).object_id == huge:
            time.sleep(0.5)  # the other object is refused meanwhile
        return answer(kind, body)

    shelf.answer = huge_comes_last  # type: ignore[method-assign]
    before = set(threading.enumerate())
    _, refused = pull(connect(), {"asked": LIMIT})
    assert "bytes at once" in refused["asked"]
    reading = {thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")}
    assert not reading - before
    assert shelf.sent < 20 * PIECE


def test_a_reply_that_says_it_answers_the_message_of_another_is_set_aside(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    shelf.put("theirs", content(20))
    shelf.replies["own"] = shelf.replies.pop("theirs")
    shelf.put("theirs", content(10))
    replies, refused = pull(connect(), {"own": LIMIT, "theirs": LIMIT})
    assert [reply.content["arrays"]["flat"].numpy().size for reply in replies] == [10]
    assert refused == {"own": "the reply says that it answers another message"}


@pytest.mark.parametrize("header", [{"content-encoding": "gzip"}, {"connection": "close"}])
def test_nothing_is_read_whose_size_is_unknown(link: tuple[Shelf, Connect], header: dict[str, str]) -> None:
    shelf, connect = link
    shelf.put("asked", content(10))
    shelf.headers = header
    _, refused = pull(connect(), {"asked": LIMIT})
    assert "does not state the size" in refused["asked"]


def test_replies_are_not_pulled_at_all_where_they_cannot_be_limited() -> None:
    other = type("OtherGrid", (), {"__module__": "flwr.superlink.grid"})  # Flower's, if it were made in another way
    with pytest.raises(SizeLimitUnavailableError, match="install flwr"):
        pull(other(), {"asked": LIMIT})


def test_flower_still_has_the_connection_that_the_limit_is_put_on(link: tuple[Shelf, Connect]) -> None:
    shelf, connect = link
    grid = connect()
    pull(grid, {"asked": LIMIT})
    assert grid._runtime_client._client.event_hooks == {"request": [], "response": []}
    shelf.put("asked", content(4 * PIECE))
    assert pull(grid, {"asked": LIMIT})[1]
    assert grid._runtime_client._client.event_hooks == {"request": [], "response": []}
