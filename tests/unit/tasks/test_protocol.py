import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.protocol import DTYPES, SerializationError, named_views, pack, read_npy, unpack


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
    with pytest.raises(SerializationError, match=message):
        unpack(flat, header)


def test_text_arrays_cannot_travel():
    with pytest.raises(SerializationError, match="dtype str"):
        pack({"a": np.array(["x"])})


def test_header_is_short():
    _, header = pack({"layer.weight": np.zeros((3, 3), np.float32)})
    assert json.loads(header) == [["layer.weight", [3, 3], "float32"]]


def test_views_share_the_bytes_and_equal_the_copies():
    flat, header = pack({"a": np.arange(3, dtype=np.int8), "b": np.arange(4, dtype=np.float64)})
    for name, view in named_views(flat, header).items():
        assert np.shares_memory(view, flat)
        assert np.array_equal(view, unpack(flat, header)[name])


def saved(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(st.sampled_from(DTYPES).map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    st.booleans(),
)
def test_an_npy_file_is_read_as_numpy_reads_it_but_not_copied(array: np.ndarray, fortran_order: bool):
    data = saved(np.asfortranarray(array) if fortran_order and array.ndim else array)
    read = read_npy(data)
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tobytes() == np.load(BytesIO(data)).tobytes()
    assert not read.flags.writeable


def header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "NumPy's format 1.0"),
        (b"PK\x03\x04" + bytes(60), "NumPy's format 1.0"),
        (b"\x93NUMPY\x01\x00", "header"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "header"),
        (header("(" * 200 + ")" * 200), "header"),
        (header("(10000000000000,)") + bytes(8), "states uint8 of shape"),
        (header("(-2, -4)") + bytes(8), "states uint8 of shape"),
        (header("(4,)") + bytes(5), "but 5 bytes follow"),
        (saved(np.zeros(3))[:-1], "but 23 bytes follow"),
        (saved(np.array([{}], object), allow_pickle=True), "states object"),
        (saved(np.array(["text"])), "states <U4"),
        (saved(np.zeros(2, [("a", "f4"), ("b", "i4")])), "states"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data: bytes, message: str):
    with pytest.raises(SerializationError, match=message):
        read_npy(data)
