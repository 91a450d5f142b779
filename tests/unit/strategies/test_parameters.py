import numpy as np
import pytest

from strategies.parameters import Parameters, as_sent
from tests.messages import MODEL, moved


def test_the_step_to_a_model_leads_to_it():
    parameters = Parameters(MODEL, {"running_var"})
    other = moved(0.0, weight=np.array([[5, 1], [0, -2]], np.float32))
    step = parameters.step_to(other)
    assert step.tolist() == [4, -1, -3, -6]
    after = parameters.after(step)
    assert after.keys() == {"weight"}
    assert np.array_equal(after["weight"], other["weight"])
    assert np.array_equal(parameters.step_to(MODEL), np.zeros(4))


def test_integers_and_buffers_are_no_parameters():
    assert Parameters(MODEL).sizes == (4, 2)
    parameters = Parameters(MODEL, ["running_var"])
    assert parameters.sizes == (4,)
    assert [name in parameters for name in MODEL] == [True, False, False]


@pytest.mark.parametrize(("dtypes", "expected"), [("ef", "f"), ("e", "f"), ("fd", "d")])
def test_vectors_are_float32_unless_a_parameter_is_float64(dtypes: str, expected: str):
    model = {dtype: np.ones(2, dtype) for dtype in dtypes}
    assert Parameters(model).step_to(model).dtype == np.dtype(expected)


def test_a_step_is_made_without_touching_the_arrays_it_is_made_from():
    frozen = {name: array.copy() for name, array in MODEL.items()}
    for array in frozen.values():
        array.flags.writeable = False
    parameters = Parameters(frozen)
    step = parameters.step_to(frozen)
    step += 1
    assert not parameters.step_to(frozen).any()


def test_arrays_come_back_in_the_order_and_dtypes_of_the_model_with_integers_rounded():
    values = {"count": np.array(2.5), "running_var": np.ones(2), "weight": np.full((2, 2), 0.1)}
    restored = as_sent({**values, "count": np.array(10.6)}, MODEL)
    assert list(restored) == list(MODEL)
    assert [array.dtype for array in restored.values()] == [array.dtype for array in MODEL.values()]
    assert restored["count"] == 11
    assert all(isinstance(array, np.ndarray) for array in restored.values())
