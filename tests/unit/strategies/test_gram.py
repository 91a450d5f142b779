import numpy as np
import pytest

from strategies.gram import Doubles, Vector, gram_matrix, squared_distances, sum_over_blocks


def exact_squared_distances(updates: list[Vector]) -> Doubles:
    wide = [update.astype(np.longdouble) for update in updates]
    return np.array([[((a - b) ** 2).sum() for b in wide] for a in wide], np.float64)


@pytest.mark.parametrize(("block", "size"), [(7, 50), (64, 50), (64, 5000), (2**18, 50), (64, 0)])
def test_every_column_is_visited_once(block: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.gram.BLOCK", block)
    updates: list[Vector] = [np.arange(size, dtype=np.float32) + 100 * i for i in range(3)]
    visits = np.zeros(size)
    copy = np.zeros((3, size))

    def visit(columns: slice, part: Doubles) -> Doubles:
        assert part.size <= block
        visits[columns] += 1
        copy[:, columns] = part
        return np.asarray(part.sum(axis=1), np.float64)

    np.testing.assert_array_equal(sum_over_blocks(updates, visit), np.sum(updates, axis=1, dtype=np.float64))
    np.testing.assert_array_equal(visits, np.ones(size))
    np.testing.assert_array_equal(copy, updates)


def test_number_of_cores_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    updates: list[Vector] = [rng.standard_normal(200_000) for _ in range(20)]
    grams = []
    for cores in (1, 2, 8, None):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        grams.append(gram_matrix(updates))
    for gram in grams[1:]:
        np.testing.assert_array_equal(gram, grams[0])


def test_error_in_a_block_reaches_the_caller() -> None:
    def visit(columns: slice, part: Doubles) -> Doubles:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        sum_over_blocks([np.ones(10)], visit)


def test_gram_matrix_is_relative_to_the_smallest_update() -> None:
    updates: list[Vector] = [np.array([3.0, 4.0]), np.array([1.0, 0.0]), np.array([0.0, 2.0])]
    centred = np.vstack([*updates, np.zeros(2)]) - updates[1]
    np.testing.assert_array_equal(gram_matrix(updates), centred @ centred.T)


def test_smallest_update_is_found_beyond_the_range_of_float32_squares() -> None:
    updates: list[Vector] = [np.full(4, value, np.float32) for value in (1e30, 2e-30, 1e-30, 1e25)]
    gram = gram_matrix(updates)
    assert gram[2, 2] == 0
    np.testing.assert_allclose(gram[1, 1], 4e-60, rtol=1e-6)


@pytest.mark.parametrize("kind", ["noise", "positive", "common", "outliers"])
def test_squared_distances_match_extended_precision(kind: str) -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((8, 30_000))
    rows = {
        "noise": 1e-5 * noise,
        "positive": np.abs(noise) + np.arange(8)[:, None],
        "common": rng.standard_normal(30_000) + 1e-5 * noise,
        "outliers": noise * np.array([1, 1, 1e12, 1, 1, -1e12, 1, 1])[:, None],
    }[kind]
    updates: list[Vector] = list(rows.astype(np.float32))
    with_zero = [*updates, np.zeros_like(updates[0])]  # the global model
    np.testing.assert_allclose(squared_distances(gram_matrix(updates)), exact_squared_distances(with_zero), rtol=1e-12)


def test_copies_are_at_distance_zero() -> None:
    rng = np.random.default_rng(2)
    base: list[Vector] = [rng.uniform(1, 2, 10_000) for _ in range(5)]
    squared = squared_distances(gram_matrix([*base, *[update.copy() for update in base]]))
    np.testing.assert_array_equal(np.diag(squared[:5, 5:]), np.zeros(5))
    assert (squared >= 0).all()
    assert (squared[:5, :5] + np.eye(5) > 0).all()


def test_distances_below_the_resolution_count_as_zero() -> None:
    gram = np.array([[1.0, 1.0 + 1e-16], [1.0 + 1e-16, 1.0 + 1e-14]])
    np.testing.assert_array_equal(squared_distances(gram), np.zeros((2, 2)))
