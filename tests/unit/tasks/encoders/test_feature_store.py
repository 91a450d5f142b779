"""The feature store keeps encoded examples, goes on after an interruption, and refuses what is no feature."""

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.encoders import EncoderError, FeatureStore
from tasks.encoders import feature_store as module
from tasks.encoders.feature_store import BLOCK, Plan

COUNT, WIDTH = 3 * BLOCK + 7, 5
LABELS = np.arange(COUNT) % 3


def values(start: int, stop: int) -> Tensor:
    """Features that tell where they belong; exact in float16."""
    return torch.arange(start, stop)[:, None].float() + torch.arange(WIDTH)


def plan(encode: Callable[[int, int], Tensor] = values) -> Plan:
    return Plan("Encoding", COUNT, WIDTH, encode)


def test_what_is_made_is_found_again_as_float16_that_is_mapped_and_not_read(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "cache")
    assert store.find("a") is None
    made, labels = store.make("a", LABELS, plan())
    assert made.dtype == torch.float16
    assert torch.equal(made.float(), values(0, COUNT))
    assert np.array_equal(labels, LABELS)
    found = FeatureStore(tmp_path / "cache").find("a")
    assert found is not None
    assert torch.equal(found[0], made)
    assert isinstance(np.load(tmp_path / "cache/features-a.npy", mmap_mode="c"), np.memmap)
    assert store.find("b") is None, "another key is another content"


def test_nothing_is_encoded_twice(tmp_path: Path) -> None:
    FeatureStore(tmp_path).make("a", LABELS, plan())

    def fail(start: int, stop: int) -> Tensor:
        raise AssertionError("encoded again")

    assert torch.equal(FeatureStore(tmp_path).make("a", LABELS, plan(fail))[0].float(), values(0, COUNT))


def test_an_interrupted_encoding_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_MARKS", 0.0)
    asked: list[int] = []

    def interrupted(start: int, stop: int) -> Tensor:
        asked.append(start)
        if start == 2 * BLOCK:
            raise KeyboardInterrupt
        return values(start, stop)

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path).make("a", LABELS, plan(interrupted))
    assert asked == [0, BLOCK, 2 * BLOCK]
    asked.clear()

    def counted(start: int, stop: int) -> Tensor:
        asked.append(start)
        return values(start, stop)

    made, _ = FeatureStore(tmp_path).make("a", LABELS, plan(counted))
    assert asked == [2 * BLOCK, 3 * BLOCK]
    assert torch.equal(made.float(), values(0, COUNT))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features-a.labels.npy",
        "features-a.lock",
        "features-a.npy",
    ]


def test_a_partial_file_of_another_size_is_not_continued(tmp_path: Path) -> None:
    np.save(tmp_path / "features-a.partial.npy", np.zeros((COUNT, WIDTH + 1), np.float16))
    (tmp_path / "features-a.done").write_text(str(BLOCK))
    made, _ = FeatureStore(tmp_path).make("a", LABELS, plan())
    assert torch.equal(made.float(), values(0, COUNT))


@pytest.mark.parametrize("name", ["features-a.npy", "features-a.labels.npy"])
def test_a_file_that_was_cut_short_is_made_again(name: str, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.make("a", LABELS, plan())
    path = tmp_path / name
    whole = path.read_bytes()
    for kept in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert store.find("a") is None
    (tmp_path / "features-a.partial.npy").touch()
    (tmp_path / "features-a.done").write_text(str(BLOCK))
    assert torch.equal(store.make("a", LABELS, plan())[0].float(), values(0, COUNT))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: torch.where(x == 9, torch.nan, x), "no numbers (NaN or infinite)"),
        (lambda x: x * torch.inf, "no numbers (NaN or infinite)"),
        (lambda x: x[:, :-1], f"features of shape ({BLOCK}, {WIDTH}), got ({BLOCK}, {WIDTH - 1})"),
        (lambda x: x + 70_000, "a feature of 7.03e+04; float16 ends at 65504"),
    ],
)
def test_what_is_no_feature_is_refused_and_not_kept(
    spoil: Callable[[Tensor], Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(EncoderError) as caught:
        FeatureStore(tmp_path).make("a", LABELS, plan(lambda start, stop: spoil(values(start, stop))))
    assert message in str(caught.value)
    assert FeatureStore(tmp_path).find("a") is None


def test_the_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "new/cache").make("a", LABELS, plan())
    assert stat.S_IMODE((tmp_path / "new/cache").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_written_is_named_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EncoderError, match=r"cannot keep encoded examples in .*/file/cache: .*name another folder in"):
        FeatureStore(tmp_path / "file/cache").make("a", LABELS, plan())
