import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.wire import DTYPES, WireError, pack, unpack


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from(DTYPES).map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
        ),
        max_size=5,
    )
)
def test_every_array_comes_back_bit_for_bit(arrays: dict[str, np.ndarray]):
    flat, header = pack(arrays)
    back = unpack(flat, header)
    assert flat.dtype == np.uint8
    assert flat.ndim == 1
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
        assert back[name].flags.writeable


def test_odd_strides_are_packed_in_c_order():
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert np.array_equal(unpack(*pack({"a": array}))["a"], array)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("not json", "not a list"),
        ("[[1]]", "not a list"),
        ('[["a",[2],"float32"]]', "expected 8 bytes"),
        ('[["a",[1],"object"]]', "dtype object"),
        ('[["a",[-1],"float32"]]', "shape"),
        ('[["a",[0],"float32"],["a",[1],"float32"]]', "twice"),
    ],
)
def test_a_malformed_header_is_refused(header: str, message: str):
    flat, _ = pack({"a": np.zeros(1, np.float32)})
    with pytest.raises(WireError, match=message):
        unpack(flat, header)


def test_text_arrays_cannot_travel():
    with pytest.raises(WireError, match="dtype str"):
        pack({"a": np.array(["x"])})


def test_header_is_short():
    _, header = pack({"layer.weight": np.zeros((3, 3), np.float32)})
    assert json.loads(header) == [["layer.weight", [3, 3], "float32"]]
