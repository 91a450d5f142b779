"""A disk that fills up during a run: nothing saved is lost, the reason is on record, and the run can go on."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message

import tasks.files
from tasks.files import WriteError
from tests.full_disk import fill, room_for, small_disk
from tests.integration.conftest import Play, Played

PLACES = (
    ("server_app.storage.checkpoints.replace_file", "last.safetensors"),
    ("server_app.storage.checkpoints.replace_file", "best.safetensors"),
    ("server_app.storage.run_directory.append_text", "metrics.jsonl"),
    ("server_app.storage.run_directory.append_text", "clients.jsonl"),
    ("server_app.storage.run_directory.replace_file", "status.json"),
)


def fail_in_round(
    monkeypatch: pytest.MonkeyPatch, function: str, name: str, server_round: int
) -> Callable[[int, Message, Message], Message]:
    """Let the file ``name`` find no room once training of a round has begun, until the run has ended."""
    write = getattr(tasks.files, function.rpartition(".")[2])
    reached: list[int] = []

    def watch(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.group_id == str(server_round) and message.metadata.message_type == "train":
            reached.append(client)
        return reply

    def refuse(path: Path, content: bytes | str, *rest: object) -> None:
        if path.name != name or not reached:
            return write(path, content, *rest)
        reached.clear()
        with room_for((path.stat().st_size if "append" in function else 0) + len(content) // 2):
            return write(path, content, *rest)

    monkeypatch.setattr(function, refuse)
    return watch


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}


def assert_equal(one: Played, other: Played) -> None:
    assert one.metrics == other.metrics
    assert one.lines("clients.jsonl") == other.lines("clients.jsonl")
    assert one.weights() == other.weights()


@pytest.mark.parametrize(("function", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_run_ends_with_the_reason_and_goes_on_when_there_is_room(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, name: str
):
    settings = {"loss__name": "ce", "noise__name": "none", "method__name": "tests.integration.counting:Counting"}
    whole = play(**settings)
    with monkeypatch.context() as patch:
        watch = fail_in_round(patch, function, name, server_round=3)
        with pytest.raises(WriteError, match=rf"cannot write .*{name}: File too large; free space, then go on with"):
            play(watch, **settings)
    (path,) = set(tmp_path.iterdir()) - {whole.path}
    broken = Played(path)
    assert broken.status["status"] == "failed"
    assert f"run.resume={path}" in broken.status["reason"]
    assert broken.metrics == whole.metrics[: len(broken.metrics)]
    assert len(broken.metrics) in (3, 4), "rounds 0 to 2 are there, and nothing torn"
    assert len(broken.lines("clients.jsonl")) in (12, 16)
    assert set(files(path)) == {"manifest.json", "last.safetensors", "previous.safetensors", "best.safetensors"}
    assert not [file for file in path.rglob("*") if file.name.endswith(".partial")]
    assert_equal(play(run__resume=str(path), **settings), whole)


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["none at all", "for half a checkpoint"])
def test_a_real_disk_without_room(play: Play, tmp_path: Path, share: float):
    whole = play()
    leave = int(share * len(whole.weights()))
    with small_disk(tmp_path / "disk", size=4_000_000) as disk:
        fillers: list[Path] = []

        def fill_up(client: int, message: Message, reply: Message) -> Message:
            if message.metadata.group_id == "3" and message.metadata.message_type == "train" and client == 3:
                fillers.append(fill(disk, leave))
            return reply

        with pytest.raises(
            WriteError, match=r"No space left on device; free space, then go on with run\.resume="
        ) as error:
            play(fill_up, run__output_dir=str(disk))
        assert error.value.errno == errno.ENOSPC
        (path,) = set(disk.iterdir()) - set(fillers)
        broken = Played(path)
        assert broken.status["status"] == "failed", "the reserve made room for the last words"
        assert "No space left on device" in broken.status["reason"]
        assert files(path).keys() >= {"last.safetensors", "previous.safetensors"}
        fillers[0].unlink()
        assert_equal(play(run__resume=str(path), run__output_dir=str(disk)), whole)


def test_without_any_checkpoint_the_advice_is_to_start_again(play: Play, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, content: bytes, keep: Path | None = None) -> None:
        with room_for(0):
            tasks.files.replace_file(path, content, keep)

    monkeypatch.setattr("server_app.storage.checkpoints.replace_file", refuse)
    with pytest.raises(WriteError, match="free space, then start again: there is no checkpoint yet"):
        play()


def test_a_client_without_room_for_its_state_costs_its_reply_and_keeps_its_old_state(
    play: Play, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, content: bytes, *, private: bool) -> None:
        if "clients/1/" in str(path) and path.name == "state-2.safetensors":
            with room_for(10):
                return tasks.files.replace_file(path, content, private=private)
        return tasks.files.replace_file(path, content, private=private)

    monkeypatch.setattr("client_app.state.replace_file", refuse)
    run = play(method__name="tests.integration.counting:Counting", federation__min_replies=2)
    assert run.status["status"] == "completed"
    assert [(line["replies"], line["quarantined"]) for line in run.metrics[1:]] == [(4, 0), (3, 1), (4, 0)]
    (reason,) = [line["quarantine"] for line in run.lines("clients.jsonl") if line.get("quarantine")]
    assert "File too large" in reason
    first, second, third = (line["train_rounds"] for line in run.metrics[1:])
    assert (first, second) == (0.0, 1.0)
    assert 1.0 < third < 2.0, "client 1 went on from the state of round 1"
    states = {path.name for path in (run.path / "clients/1").glob("*state*")}
    assert states == {"state-1.safetensors", "state-3.safetensors"}
