"""Half precision on the wire, against NumPy's float16 and the definition of bfloat16."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from tasks import protocol
from tasks.protocol import SerializationError, Slot
from tasks.records import view_of, view_record, views
from tasks.wire import from_half, named_record, to_half, wires_of
from tasks.wire import pack_half as pack_array

WIRES = {"float16": 11, "bfloat16": 8}
PATTERNS = np.arange(2**16, dtype=np.uint16)
REPRESENTABLE = {
    "float16": PATTERNS.view(np.float16).astype(np.float32),
    "bfloat16": (PATTERNS.astype(np.uint32) << 16).view(np.float32),
}


def pack_half(*given: Any) -> tuple[np.ndarray, str, float]:
    array, header, error = pack_array(*given)
    return view_of(array), header, error


def back(values: np.ndarray, wire: str) -> np.ndarray:
    bits, exponent = to_half(values, wire)
    assert bits.dtype == np.uint16
    return from_half(bits, Slot("", values.shape, values.dtype.name, wire, exponent))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wire", WIRES)
def test_all_that_16_bits_can_hold_comes_back_exactly(wire: str, dtype: str):
    values = REPRESENTABLE[wire][np.isfinite(REPRESENTABLE[wire])].astype(dtype)
    assert_array_equal(back(values, wire), values)
    small = (values[np.abs(values) < 1] * 2.0**-100).astype(dtype)  # float16 alone would make zeros of it
    if wire == "float16":
        assert_array_equal(back(small, wire), small)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wire", WIRES)
def test_other_values_are_rounded_to_the_nearest(wire: str, dtype: str):
    generator = np.random.default_rng(0)
    values = (generator.standard_normal(50_000) * 2.0 ** generator.uniform(-20, 0, 50_000) * 3e7).astype(dtype)
    error = np.abs(back(values, wire).astype(np.float64) - values)
    most = 2.0 ** -WIRES[wire]
    assert (error <= most * np.abs(values) + 2.0**-40 * np.abs(values).max()).all()
    assert error.max() > most * np.abs(values).max() / 4  # and no better than the format allows
    tiny = np.array([3e4, 1e-4, 1e-9, 1e-12], dtype)  # 40 powers of two below the largest there is nothing
    assert (np.abs(back(tiny, "float16") - tiny)[:3] <= [2**-11 * 3e4, 2**-11 * 1e-4, 3e4 * 2**-40]).all()
    assert back(tiny, "float16")[3] == 0


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "values", [[3e38, -1e38], [1e-45, 0], [65535.0], [0.0, -0.0], [], [np.nan, 1], [np.inf, -np.inf]]
)
def test_limits_neither_overflow_nor_become_numbers(values: list[float], wire: str):
    array = np.array(values, np.float32)
    np.testing.assert_allclose(back(array, wire), array, rtol=2.0 ** -WIRES[wire])


@pytest.mark.parametrize("wire", WIRES)
def test_a_small_update_survives_as_a_difference_and_not_as_weights(wire: str):
    generator = np.random.default_rng(1)
    model = {"w": generator.standard_normal(1000).astype(np.float32)}
    update = (1e-6 * generator.standard_normal(1000)).astype(np.float32)
    flat, header, _ = pack_half(model, wires_of(model, wire))
    received = named_record(flat, header)
    trained = {"w": received["w"].numpy() + update}
    sent = trained["w"] - received["w"].numpy()  # what float32 leaves of the update
    up, up_header, error = pack_half(trained, {"w": wire}, received)
    came = views(named_record(up, up_header, {"w": wire}, model))["w"] - model["w"]
    assert np.linalg.norm(came - sent) < 0.1 * np.linalg.norm(sent), "the update came through"
    assert 0 < error < 2.0 ** -WIRES[wire]
    as_weights = back(trained["w"], wire) - received["w"].numpy()
    assert np.linalg.norm(as_weights) < 0.1 * np.linalg.norm(sent), "as weights it would be lost"


def test_the_error_is_that_of_all_updates_together():
    model = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float64), "n": np.array(7)}
    trained = {"a": np.array([1, 2, 1 + 2**-12], np.float32), "b": np.array([3, 2**-60]), "n": np.array(9)}
    wires = wires_of(trained, "float16")
    flat, header, error = pack_half(trained, wires, view_record(model))
    came = views(named_record(flat, header, wires, model))
    lost = np.concatenate([came[name].ravel() - trained[name].ravel() for name in ("a", "b")])
    whole = np.concatenate([trained[name].ravel() for name in ("a", "b")])
    assert error == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(whole), rel=1e-6)
    assert error > 0
    assert came["n"] == 9
    assert pack_half(model, wires, view_record(model))[2] == 0


def test_parameters_take_half_the_bytes_and_all_else_as_many_as_before():
    model = {
        "weight": np.ones((300, 100), np.float32),
        "running_var": np.full(50, 1 + 2**-20, np.float32),
        "half": np.ones(3, np.float16),
        "count": np.array(2**40 + 1),
    }
    flat, header, _ = pack_half(model, wires_of(model, "bfloat16", exact=["running_var"]))
    assert flat.nbytes == 2 * 30_000 + 4 * 50 + 2 * 3 + 8
    came = views(named_record(flat, header))
    assert {name: (a.dtype, a.shape) for name, a in came.items()} == {n: (a.dtype, a.shape) for n, a in model.items()}
    assert all(np.array_equal(came[name], model[name]) for name in model)
    plain = pack_half(model, wires_of(model, "float32"))
    assert plain[1:] == (protocol.pack(model)[1], 0.0)
    assert_array_equal(plain[0], protocol.pack(model)[0])
    with pytest.raises(SerializationError, match="in full, got bfloat16"):
        protocol.named_views(flat, header)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('["w",[2],"float32","float16",NaN]', "exponent"),
        ('["w",[2],"float32","float16",Infinity]', "exponent"),
        ('["w",[2],"float32","float16",127]', "exponent"),
        ('["w",[2],"float32","float16",1.5]', "exponent"),
        ('["w",[2],"float32","float16","3"]', "exponent"),
        ('["w",[2],"float32","",3]', "expected float32 or float64 in float16"),
        ('["w",[2],"float32","float8",0]', "float8"),
        ('["w",[2],"float32",["float16"],0]', "expected float32 or float64 in float16"),
        ('["w",[2],"int32","float16",0]', "int32"),
        ('["w",[2],"float32","float16",0,0]', "not a list"),
        ('["w",[1],"float32","float16",0]', "expected 2 bytes"),
        ('["w",[1],"float32"]', "was to come as float16, got float32"),
        ('["w",[2],"float32","bfloat16",0]', "was to come as float16, got bfloat16"),
        ('["w",[2],"float64","float16",0]', "expected float32"),
        ('["w",[2,1],"float32","float16",0]', "expected float32"),
        ('["v",[2],"float32","float16",0]', "'v' was to come as in full"),
    ],
)
def test_a_hostile_header_is_refused(entry: str, message: str):
    model = {"w": np.zeros(2, np.float32)}
    flat, _, _ = pack_half(model, {"w": "float16"})
    with pytest.raises(SerializationError, match=message):
        named_record(flat, f"[{entry}]", {"w": "float16"}, model)
    assert list(named_record(flat, '[["w",[2],"float32","float16",-3]]', {"w": "float16"}, model)) == ["w"]
