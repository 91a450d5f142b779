"""The search behind minimum diameter averaging, against all subsets and all vertex covers of small graphs."""

from itertools import combinations

import numpy as np
import pytest

from strategies.aggregators.minimum_diameter import covers, smallest_diameter
from strategies.gram import squared_distances


@pytest.mark.parametrize("seed", range(30))
def test_all_smallest_covers_are_found_and_none_is_larger_than_allowed(seed: int):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(1, 9))
    far = np.triu(draw.random((size, size)) < draw.uniform(0.1, 0.9), 1)
    pairs, far = np.argwhere(far), far | far.T
    edges = [sum(1 << int(j) for j in np.flatnonzero(row)) for row in far]

    def is_cover(chosen: int) -> bool:
        return all(chosen >> int(i) & 1 or chosen >> int(j) & 1 for i, j in pairs)

    smallest = min(chosen.bit_count() for chosen in range(2**size) if is_cover(chosen))
    wanted = {chosen for chosen in range(2**size) if is_cover(chosen) and chosen.bit_count() == smallest}
    assert not smallest or next(covers(edges, smallest - 1), None) is None
    for most in (smallest, smallest + 1):
        found = list(covers(edges, most))
        assert wanted <= set(found)
        assert all(is_cover(chosen) and chosen.bit_count() <= most for chosen in found)


@pytest.mark.parametrize("seed", range(30))
def test_no_subset_is_closer_together_also_where_updates_are_equal(seed: int):
    draw = np.random.default_rng(seed)
    n = int(draw.integers(1, 10))
    f = int(draw.integers(0, (n + 1) // 2))
    matrix = draw.standard_normal((n, 3))
    matrix = np.round(matrix) if seed % 2 else matrix
    squared = squared_distances(matrix @ matrix.T)
    kept = smallest_diameter(squared, f)
    subsets = [list(rows) for rows in combinations(range(n), n - f)]
    assert len(kept) == n - f
    assert squared[np.ix_(kept, kept)].max() == min(squared[np.ix_(rows, rows)].max() for rows in subsets)


def test_many_clients_are_no_matter():
    matrix = np.random.default_rng(0).standard_normal((100, 50))
    matrix[:20] += 30
    assert smallest_diameter(squared_distances(matrix @ matrix.T), 20).tolist() == list(range(20, 100))
