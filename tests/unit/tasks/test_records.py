"""Views in Flower's clothes: the same bytes as Flower's own arrays, and no copy before somebody asks for one."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.protocol import DTYPES, SerializationError
from tasks.records import ArrayView, byte_array, view_of, view_record, views
from tests.messages import MODEL, record

ANY = hnp.arrays(
    st.sampled_from(DTYPES).map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)


@settings(max_examples=40, deadline=None)
@given(ANY)
def test_a_view_says_what_flowers_array_says(array: np.ndarray):
    ours, theirs = ArrayView(array), Array(array)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (theirs.dtype, theirs.shape, theirs.stype, theirs.data)
    assert ours.object_id != ""
    assert ours.deflate().partition(b"\x00")[2] == theirs.deflate().partition(b"\x00")[2]
    assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def test_nothing_is_copied_but_what_a_strategy_may_write_to():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    view = view_record({"a": array})["a"]
    assert np.shares_memory(view_of(view), array)
    assert not view_of(view).flags.writeable
    view.numpy()[:] = 7
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    array[0, 0] = 9  # the view is of the array as it is now
    assert view.numpy()[0, 0] == 9
    assert array.flags.writeable


def test_views_of_flowers_own_record_share_its_bytes():
    sent = record(MODEL)
    for name, array in views(sent).items():
        assert np.shares_memory(array, np.frombuffer(sent[name].data, np.uint8))
        assert array.tobytes() == MODEL[name].tobytes()
    with pytest.raises(SerializationError, match="NumPy's format"):
        views(ArrayRecord({"a": Array("float32", (1,), "numpy.ndarray", b"junk")}))


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_bytes_are_stored_as_flower_stores_them(size: int):
    flat = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    ours, theirs = byte_array(flat), Array(flat)
    assert ours == theirs == byte_array(flat[: size // 3], flat[size // 3 :])
