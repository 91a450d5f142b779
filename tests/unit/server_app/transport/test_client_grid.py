import json
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

import server_app.transport.client_grid
from client_app.mods import named_arrays
from server_app.registration import register_clients
from server_app.transport.client_grid import MALFORMED, ClientGrid, poll_seconds
from tasks import protocol
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode
from tasks.records import views
from tasks.settings import FederationSettings
from tests.messages import MODEL, PlainDownload, record

NODES = {0: 900, 1: 17, 2: 523}


class Post:
    """A SuperLink that keeps what is sent and returns what it is told."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.replies: list[Message] = []

    def push_messages(self, messages: list[Message]) -> list[str]:
        for number, message in enumerate(messages, len(self.sent)):
            message.metadata.__dict__["_message_id"] = f"m{number}"
        self.sent += messages
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        found = [reply for reply in self.replies if reply.metadata.reply_to_message_id in message_ids]
        self.replies = [reply for reply in self.replies if reply not in found]
        return found


@pytest.fixture(autouse=True)
def plain_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.transport.replies.ReplyDownload", PlainDownload)


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def grid(post: Post) -> ClientGrid:
    return ClientGrid(post, NODES, MessageHeader(-1, num_rounds=9), Mode.DEPLOYMENT)  # type: ignore[arg-type]


def instructions(clients: list[int]) -> list[Message]:
    content = RecordDict({"arrays": record(MODEL), "config": ConfigRecord({"server-round": 3, "role": "noisy"})})
    return [Message(content, dst_node_id=client, message_type="train") for client in clients]


def reply_to(message: Message, arrays: dict[str, np.ndarray] | None = None) -> Message:
    flat, flat_layout = protocol.pack(MODEL if arrays is None else arrays)
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(flat)}), "metrics": MetricRecord({"num-examples": 1})})
    content[RECORD] = ConfigRecord({"layout": flat_layout})
    return Message(content, reply_to=message)


def test_clients_are_seen_in_order_whatever_their_nodes(grid: ClientGrid):
    assert list(grid.get_node_ids()) == [0, 1, 2]


def test_the_model_is_sent_as_one_array_with_a_header(grid: ClientGrid, post: Post):
    grid.begin_round(3, 2)
    grid.push_messages(instructions([2, 0]))
    assert [message.metadata.dst_node_id for message in post.sent] == [523, 900]
    for client, message in zip([2, 0], post.sent, strict=True):
        assert list(message.content["arrays"]) == [ARRAYS]
        header = MessageHeader.of(message.content.config_records[RECORD])
        assert replace(header, layout="") == MessageHeader(client, 3, 9, role="noisy", checkpoint_round=2)
        back = protocol.unpack(message.content.array_records["arrays"][ARRAYS].numpy(), header.layout)
        assert all(np.array_equal(back[name], array) for name, array in MODEL.items())


def test_replies_come_back_as_named_arrays_of_clients_in_order(grid: ClientGrid, post: Post):
    class Answering(Post):
        def push_messages(self, messages: list[Message]) -> list[str]:
            names = super().push_messages(messages)
            self.replies = [reply_to(message) for message in reversed(messages)]
            return names

    grid = ClientGrid(Answering(), NODES, MessageHeader(-1), Mode.DEPLOYMENT)  # type: ignore[arg-type]
    replies = list(grid.send_and_receive(instructions([2, 0, 1]), timeout=1.0))
    assert [reply.metadata.src_node_id for reply in replies] == [0, 1, 2]
    assert list(replies[0].content["arrays"]) == list(MODEL)
    assert set(replies[0].content) == {"arrays", "metrics"}


def test_an_error_of_the_superlink_is_charged_to_the_client_of_the_message(grid: ClientGrid, post: Post):
    names = list(grid.push_messages(instructions([1])))
    lost = Message(Error(5, "node unavailable"), reply_to=post.sent[0])
    lost.metadata.__dict__["_src_node_id"] = 1  # the SuperLink itself
    post.replies = [lost]
    (reply,) = grid.pull_messages(names)
    assert reply.metadata.src_node_id == 1
    assert reply.has_error()
    grid.push_messages(instructions([2]))
    lost = Message(Error(5, "node unavailable"), reply_to=post.sent[1])
    lost.metadata.__dict__["_src_node_id"] = 1
    post.replies = [lost]
    (reply,) = grid.pull_messages(["m1"])
    assert reply.metadata.src_node_id == 2


def test_a_reply_to_an_earlier_round_is_never_taken_for_a_new_one(grid: ClientGrid, post: Post):
    grid.push_messages(instructions([0]))
    late = reply_to(post.sent[0])
    new = list(grid.push_messages(instructions([0])))
    post.replies = [late]
    assert list(grid.pull_messages([*new, "m0"])) == []


def test_two_replies_to_one_message_are_both_passed_on(grid: ClientGrid, post: Post):
    (name,) = grid.push_messages(instructions([1]))
    post.replies = [reply_to(post.sent[0]), reply_to(post.sent[0])]
    assert [reply.metadata.src_node_id for reply in grid.pull_messages([name])] == [1, 1]
    assert list(grid.pull_messages([name])) == []


def test_the_arrays_of_a_reply_are_views_of_the_bytes_that_came_and_those_that_were_read_are_not_held():
    class Answering(Post):
        def push_messages(self, messages: list[Message]) -> list[str]:
            names = super().push_messages(messages)
            self.replies = [reply_to(message) for message in messages]
            came.extend(weakref.ref(reply.content) for reply in self.replies)
            flat.extend(record.data for reply in self.replies for record in reply.content["arrays"].values())  # type: ignore[misc,union-attr]
            return names

    came: list[weakref.ref[RecordDict]] = []
    flat: list[bytes] = []
    grid = ClientGrid(Answering(), NODES, MessageHeader(-1), Mode.DEPLOYMENT)  # type: ignore[arg-type]
    seen: list[weakref.ref[RecordDict]] = []
    for place, reply in enumerate(grid.send_and_receive(instructions([0, 1, 2]))):
        assert not any(content() for content in seen[:-1])
        seen.append(weakref.ref(reply.content))
        named = reply.content["arrays"]
        assert isinstance(named, ArrayRecord)
        bytes_that_came = np.frombuffer(flat[place], np.uint8)
        for name, array in views(named).items():
            assert np.shares_memory(array, bytes_that_came)
            assert np.array_equal(array, MODEL[name])
    assert not any(content() for content in came)


class OneByOne(Post):
    """A SuperLink that notes what is pulled; each client answers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pulled: list[str] = []

    def push_messages(self, messages: list[Message]) -> list[str]:
        names = super().push_messages(messages)
        self.replies += [reply_to(message) for message in messages]
        return names

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        self.pulled += message_ids
        return super().pull_messages(message_ids)


@pytest.mark.parametrize("mode", Mode)
def test_replies_that_do_not_fit_into_memory_are_taken_when_the_one_before_was_used(mode: Mode):
    for memory, taken in ((10_000, 3), (100, 1)):
        post = OneByOne()
        grid = ClientGrid(post, NODES, MessageHeader(-1), mode, memory=memory)  # type: ignore[arg-type]
        seen: list[int] = []
        for reply in grid.send_and_receive(instructions([0, 1, 2]), timeout=5.0):
            seen.append(reply.metadata.src_node_id)
            assert len(post.pulled) == max(taken, len(seen))
            assert list(reply.content["arrays"]) == list(MODEL)
        assert seen == [0, 1, 2]


def test_a_dead_process_is_survived_when_replies_are_taken_one_by_one():
    class Dying(OneByOne):
        def push_messages(self, messages: list[Message]) -> list[str]:
            first = not self.sent
            names = super().push_messages(messages)
            if first:
                self.replies[:2] = [Message(Error(5, "ActorDiedError"), reply_to=one) for one in messages[:2]]
            return names

    grid = ClientGrid(Dying(), NODES, MessageHeader(-1), Mode.SIMULATION, memory=1)  # type: ignore[arg-type]
    replies = list(grid.send_and_receive(instructions([0, 1, 2]), timeout=5.0))
    assert [(reply.metadata.src_node_id, reply.has_error()) for reply in replies] == [(2, False), (0, True), (1, False)]
    assert list(grid.get_node_ids()) == [1, 2]


def test_a_silent_client_is_left_out_after_the_timeout_and_messages_expire_with_it(grid: ClientGrid, post: Post):
    assert list(grid.send_and_receive(instructions([0, 1]), timeout=0.1)) == []
    assert [message.metadata.ttl for message in post.sent] == [0.1, 0.1]


@pytest.mark.parametrize(("timeout", "left_out"), [(0.0, True), (60.0, False)])
def test_an_expired_message_is_silence_and_a_lost_one_is_an_error(
    grid: ClientGrid, post: Post, monkeypatch: pytest.MonkeyPatch, timeout: float, left_out: bool
):
    push = post.push_messages

    def push_and_lose(messages: list[Message]) -> list[str]:
        names = push(messages)
        post.replies = [Message(Error(3, "Message Unavailable"), reply_to=message) for message in messages]
        return names

    monkeypatch.setattr(post, "push_messages", push_and_lose)
    replies = list(grid.send_and_receive(instructions([0, 1]), timeout=timeout))
    assert [reply.error.code for reply in replies] == ([] if left_out else [3, 3])


def test_what_a_node_says_about_the_time_decides_nothing(grid: ClientGrid, post: Post):
    names = list(grid.push_messages(instructions([0, 1, 2])))
    for message, created in zip(reversed(post.sent), (1.0, float("nan"), 1e18), strict=True):
        post.replies.append(reply_to(message))
        post.replies[-1].metadata.created_at = created
    assert sorted(reply.metadata.src_node_id for reply in grid.pull_messages(names)) == [0, 1, 2]


ODD_HEADERS = {
    "infinite": '[["a",[Infinity],"float32"]]',
    "deep": "[" * 100_000,
    "huge": '[["a",[100000000000000000000000000],"float32"]]',
}
NUMPY_HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,), }\n"
ODD_BYTES = {
    "zip": b"PK\x03\x04" + b"x" * 50,
    "stated size": b"\x93NUMPY\x01\x00" + len(NUMPY_HEADER).to_bytes(2, "little") + NUMPY_HEADER,
}


@pytest.mark.parametrize("kind", ["header", "no header", "bytes", "not a number array", *ODD_HEADERS, *ODD_BYTES])
def test_a_malformed_reply_becomes_an_error(grid: ClientGrid, post: Post, kind: str):
    names = list(grid.push_messages(instructions([2])))
    reply = reply_to(post.sent[0])
    if kind == "header":
        reply.content[RECORD] = ConfigRecord({"layout": "[]"})
    elif kind in ODD_HEADERS:
        reply.content[RECORD] = ConfigRecord({"layout": ODD_HEADERS[kind]})
    elif kind in ODD_BYTES:
        reply.content["arrays"] = ArrayRecord({ARRAYS: Array("uint8", (3,), "numpy.ndarray", ODD_BYTES[kind])})
    elif kind == "no header":
        del reply.content[RECORD]
    elif kind == "bytes":
        reply.content["arrays"] = ArrayRecord({ARRAYS: Array(np.zeros(3, np.uint8))})
    else:
        reply.content["arrays"] = ArrayRecord({ARRAYS: Array("uint8", (3,), "numpy.ndarray", b"junk")})
    post.replies = [reply]
    (seen,) = grid.pull_messages(names)
    assert seen.error.code == MALFORMED
    assert seen.error.reason.startswith("malformed reply: ")
    assert seen.metadata.src_node_id == 2


def halved(post: Post) -> ClientGrid:
    return ClientGrid(post, NODES, MessageHeader(-1), Mode.DEPLOYMENT, "float16", exact=["running_var"])  # type: ignore[arg-type]


def trained(message: Message) -> Message:
    """The reply of a client that adds 1e-5 to the model that it received, sent as our app sends it."""

    def train(inner: Message, context: Context) -> Message:
        arrays = {name: array.numpy() for name, array in inner.content.array_records["arrays"].items()}
        moved = {name: a + a.dtype.type(1e-5) if name == "weight" else a + 1 for name, a in arrays.items()}
        return Message(RecordDict({"arrays": record(moved), "metrics": MetricRecord({})}), reply_to=inner)

    return named_arrays(message, Context(1, 1, {}, RecordDict(), {}), train)


def test_half_precision_is_undone_around_the_model_that_the_server_has_kept(post: Post):
    model = MODEL | {"weight": MODEL["weight"] + np.float32(2**-20)}  # which no client sees: float16 has no such values
    asked = [Message(RecordDict({"arrays": record(model)}), dst_node_id=1, message_type="train")]
    grid = halved(post)
    names = list(grid.push_messages(asked))
    sent = post.sent[0].content.array_records["arrays"][ARRAYS].numpy()
    assert sent.nbytes == 4 * 2 + 2 * 4 + 8, "half a weight, whole statistics, the counter"
    post.replies = [trained(post.sent[0])]
    assert post.replies[0].content.array_records["arrays"][ARRAYS].numpy().nbytes == sent.nbytes
    (reply,) = grid.pull_messages(names)
    came = views(reply.content.array_records["arrays"])
    np.testing.assert_allclose(came["weight"] - model["weight"], 1e-5, rtol=0.05)  # float32 leaves 2 % of 1e-5 beside 4
    assert np.array_equal(came["running_var"], MODEL["running_var"] + 1)
    assert came["count"] == 11
    assert 0 <= reply.content.metric_records["metrics"]["wire-error"] < 2**-11  # type: ignore[operator]


HOSTILE_WIRES = {
    "in full": ("[2,2]", "float32", None),
    "other format": ("[2,2]", "float32", '"bfloat16",0'),
    "exponent nan": ("[2,2]", "float32", '"float16",NaN'),
    "wrong dtype": ("[2,2]", "float64", '"float16",0'),
    "wrong shape": ("[4]", "float32", '"float16",0'),
}


@pytest.mark.parametrize("kind", HOSTILE_WIRES)
def test_another_form_of_half_precision_than_was_asked_for_is_malformed(post: Post, kind: str):
    shape, dtype, wire = HOSTILE_WIRES[kind]
    grid = halved(post)
    names = list(grid.push_messages(instructions([2])))
    reply = trained(post.sent[0])
    entry, *others = json.loads(str(reply.content.config_records[RECORD]["layout"]))
    assert entry[:4] == ["weight", [2, 2], "float32", "float16"]
    changed = f'["weight",{shape},"{dtype}"{"," + wire if wire else ""}]'
    size = sum(np.prod(shape, dtype=int) * np.dtype(dtype).itemsize for _, shape, dtype in others)
    flat = np.zeros(size + (16 if wire is None else 8), np.uint8)
    reply.content["arrays"] = ArrayRecord({ARRAYS: Array(flat)})
    reply.content[RECORD] = ConfigRecord({"layout": f"[{changed},{json.dumps(others)[1:-1]}]"})
    post.replies = [reply]
    (seen,) = grid.pull_messages(names)
    assert seen.error.reason.startswith("malformed reply: SerializationError: array 'weight'")


class Uploads(Post):
    """A SuperLink with replies of nodes that upload what they like; Flower reads them when they are pulled."""

    def __init__(self, wrong: dict[str, bytes]) -> None:
        super().__init__()
        self.wrong = wrong

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        found = super().pull_messages(message_ids)  # confirmed before they are read, so an error loses all of them
        for name in message_ids:
            if name in self.wrong:
                MetricRecord.inflate(self.wrong.pop(name))
        return found


def test_a_reply_that_flower_cannot_read_costs_its_sender_only():
    post = Uploads({"m1": b"MetricRecord  3\x00\xff{x"})
    grid = ClientGrid(post, NODES, MessageHeader(-1, num_rounds=9), Mode.DEPLOYMENT)  # type: ignore[arg-type]
    names = list(grid.push_messages(instructions([0, 1, 2])))
    post.replies = [reply_to(message) for message in post.sent]
    seen = {reply.metadata.src_node_id: reply for reply in grid.pull_messages(names)}
    assert {client: reply.has_error() for client, reply in seen.items()} == {0: False, 1: True, 2: False}
    assert (seen[1].error.code, seen[1].error.reason[:29]) == (MALFORMED, "malformed reply: DecodeError:")
    assert list(grid.pull_messages(names)) == []


def test_a_node_whose_answer_flower_cannot_read_is_left_out_of_the_registration(caplog: pytest.LogCaptureFixture):
    class Nodes(Uploads):
        def get_node_ids(self) -> list[int]:
            return list(NODES.values())

        def push_messages(self, messages: list[Message]) -> list[str]:
            names = super().push_messages(messages)
            for client, message in enumerate(messages):
                facts = MetricRecord({"client": client, "num-examples": 5})
                self.replies.append(Message(RecordDict({"metrics": facts}), reply_to=message))
            return names

    nodes = Nodes({"m1": b"MetricRecord  3\x00\xff{x"})
    options = FederationSettings(num_clients=3, round_timeout=5.0)
    with caplog.at_level(logging.WARNING, "flwr"):
        registration = register_clients(nodes, options, MessageHeader(-1, num_rounds=9), Mode.DEPLOYMENT)  # type: ignore[arg-type]
    assert [entry.client for entry in registration.clients] == [0, 2]
    assert "malformed reply: DecodeError" in caplog.text


def test_a_lost_connection_is_nobodys_fault():
    class Down(Post):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            raise ConnectionError("the SuperLink is gone")

    grid = ClientGrid(Down(), NODES, MessageHeader(-1, num_rounds=9), Mode.DEPLOYMENT)  # type: ignore[arg-type]
    names = list(grid.push_messages(instructions([0])))
    with pytest.raises(ConnectionError):
        grid.pull_messages(names)


def test_messages_are_sent_a_part_in_each_request(monkeypatch: pytest.MonkeyPatch):
    requests: list[int] = []

    class Counting(Post):
        def push_messages(self, messages: list[Message]) -> list[str]:
            requests.append(len(messages))
            return super().push_messages(messages)

    monkeypatch.setattr(server_app.transport.client_grid, "PUSHED_TOGETHER", 2)
    grid = ClientGrid(Counting(), NODES, MessageHeader(-1), Mode.DEPLOYMENT)  # type: ignore[arg-type]
    assert list(grid.push_messages(instructions([0, 1, 2]))) == ["m0", "m1", "m2"]
    assert requests == [2, 1]


def test_the_more_replies_are_missing_the_longer_the_pause_between_looks():
    assert [poll_seconds(Mode.DEPLOYMENT, waiting) for waiting in (1, 50, 1000)] == [1.0, 1.0, 20.0]
    assert poll_seconds(Mode.SIMULATION, 1000) == 0.05
