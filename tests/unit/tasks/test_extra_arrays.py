"""Extra arrays: what may be declared, and what a method must return."""

from typing import Any

import numpy as np
import pytest

from tasks.extra_arrays import ExtraArray, returned

SENT = {"a": np.zeros((2, 3), np.float32), "b": np.array(0, np.int64)}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": ""}, "a name is"),
        ({"name": "x/y"}, "a name is"),
        ({"name": "x\x1b"}, "a name is"),
        ({"shape": (-1,)}, "whole sizes"),
        ({"shape": (2.0,)}, "whole sizes"),
        ({"dtype": "complex64"}, "whole sizes"),
        ({"start": [1, 2, 3]}, "start must be"),
        ({"start": float("nan")}, "start must be"),
    ],
)
def test_what_cannot_travel_cannot_be_declared(options: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        ExtraArray(**{"name": "x", "shape": (2,)} | options)


def test_an_array_starts_as_declared():
    first = ExtraArray("x", (2, 2), "float64", start=0.5).first()
    assert (first.tolist(), first.dtype) == ([[0.5, 0.5], [0.5, 0.5]], np.float64)
    first[0, 0] = 1  # a copy, not one number in four places
    assert ExtraArray("x", (2,), "int64", start=[3, 4]).first().tolist() == [3, 4]


def test_what_is_returned_has_the_names_shapes_and_dtypes_that_were_sent():
    found = returned("m", SENT, {"b": 2, "a": np.ones((2, 3))})
    assert {name: array.dtype for name, array in found.items()} == {"a": np.float32, "b": np.int64}
    with pytest.raises(ValueError, match="m must return the named arrays a, b, got a"):
        returned("m", SENT, {"a": np.ones((2, 3))})
    with pytest.raises(ValueError, match="must return the named arrays a, b, got a, b, c"):
        returned("m", SENT, {"a": np.ones((2, 3)), "b": 1, "c": 1})
    with pytest.raises(ValueError, match=r"a must have the shape \(2, 3\), got \(3, 2\)"):
        returned("m", SENT, {"a": np.ones((3, 2)), "b": 1})
