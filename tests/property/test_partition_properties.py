"""Every partition is disjoint, covering, sorted and at least as large as asked, or refuses; none runs forever."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.partition import PARTITIONS, Partitioner, PartitionError

quick = settings(max_examples=30, deadline=None)
alphas = st.floats(1e-3, 1e3)
choices = st.one_of(
    st.tuples(st.just("iid"), st.fixed_dictionaries({})),
    st.tuples(st.just("dirichlet"), st.fixed_dictionaries({"alpha": alphas, "capped": st.booleans()})),
    st.tuples(st.just("quantity-skew"), st.fixed_dictionaries({"alpha": alphas})),
    st.tuples(st.just("shards"), st.fixed_dictionaries({"shards_per_client": st.integers(1, 4)})),
    st.tuples(st.just("pathological"), st.fixed_dictionaries({"classes_per_client": st.integers(1, 6)})),
    st.tuples(st.just("bernoulli-dirichlet"), st.fixed_dictionaries({"p": st.floats(0.01, 1.0), "alpha": alphas})),
)
label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=150).map(np.array)


def attempt(rule: Partitioner, labels: Any, num_clients: int, seed: int) -> list[Any] | str:
    """Return the parts, or the message of the refusal."""
    try:
        return [*rule(labels, num_clients, np.random.default_rng(seed))]
    except PartitionError as error:
        return str(error)


@quick
@given(choices, label_lists, st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32))
def test_partitions_are_disjoint_covering_and_large_enough(
    choice: tuple[str, dict[str, Any]], labels: Any, num_clients: int, min_size: int, seed: int
) -> None:
    name, args = choice
    rule = PARTITIONS.build(name, {**args, "min_size": min_size})
    parts = attempt(rule, labels, num_clients, seed)
    if isinstance(parts, str):
        assert "take" in parts or "must be" in parts
        return
    assert len(parts) == num_clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert min(len(part) for part in parts) >= min_size
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@quick
@given(label_lists, st.integers(1, 20), st.integers(1, 10), st.integers(0, 2**32))
def test_iid_never_refuses_what_is_possible(labels: Any, num_clients: int, min_size: int, seed: int) -> None:
    rule = PARTITIONS.build("iid", {"min_size": min_size})
    if num_clients * min_size <= len(labels):
        assert min(len(p) for p in rule(labels, num_clients, np.random.default_rng(seed))) == len(labels) // num_clients
    else:
        with pytest.raises(PartitionError, match="fewer clients"):
            rule(labels, num_clients, np.random.default_rng(seed))


@quick
@given(st.lists(st.text(max_size=3), min_size=1, max_size=60), st.integers(0, 2**32))
def test_natural_groups_stay_whole(groups: list[str], seed: int) -> None:
    names = sorted(set(groups))
    rule = PARTITIONS.build("natural", groups=np.array(groups, dtype=object))
    parts = rule(np.zeros(len(groups), dtype=np.int64), len(names), np.random.default_rng(seed))
    for name, part in zip(names, parts, strict=True):
        assert {groups[i] for i in part} == {name}
        assert len(part) == groups.count(name)
