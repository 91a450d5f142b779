"""Each partition in cases whose answer is known, and every refusal with its remedy."""

from typing import Any

import numpy as np
import pytest

from tasks.partition import PARTITIONS, BernoulliDirichlet, PartitionError
from tasks.partition.base import deal
from tasks.partition.partitioners import Natural
from tasks.plugins import PluginError
from tasks.seeds import rng

LABELS = np.arange(1000) % 10


def divide(name: str, args: str, num_clients: int = 10, labels: Any = LABELS, seed: int = 1, **context: Any) -> Any:
    return PARTITIONS.build(name, args, **context)(labels, num_clients, rng(seed, "partition"))


def class_counts(parts: Any, labels: Any = LABELS) -> Any:
    return np.array([np.bincount(labels[part], minlength=10) for part in parts])


RANDOM = [
    ("iid", ""),
    ("dirichlet", "alpha = 0.5"),
    ("dirichlet", "alpha = 0.5, capped = false"),
    ("quantity-skew", "alpha = 2.0"),
    ("shards", "shards_per_client = 3"),
    ("pathological", "classes_per_client = 3"),
    ("bernoulli-dirichlet", "p = 0.5, alpha = 1.0"),
]


@pytest.mark.parametrize(("name", "args"), RANDOM)
def test_equal_seeds_agree_and_others_differ(name: str, args: str) -> None:
    first, again, other = (divide(name, args, seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("name", "args"), RANDOM)
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint64])
def test_labels_may_be_of_any_whole_number_kind(name: str, args: str, kind: Any) -> None:
    for part, expected in zip(divide(name, args, labels=LABELS.astype(kind)), divide(name, args), strict=True):
        np.testing.assert_array_equal(part, expected)
        assert part.dtype == np.int64


def test_one_client_gets_everything() -> None:
    for name, args in RANDOM[:5]:
        (part,) = divide(name, args, num_clients=1)
        np.testing.assert_array_equal(part, np.arange(1000))


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = [len(part) for part in divide("iid", "", num_clients=7)]
    assert sorted(sizes) == [142] * 1 + [143] * 6
    assert len(divide("iid", "", num_clients=1000)) == 1000


def test_large_alpha_is_even_and_small_alpha_is_skewed() -> None:
    even, skewed = (class_counts(divide("dirichlet", f"alpha = {alpha}, capped = false")) for alpha in (1e6, 0.1))
    assert abs(even - 10).max() <= 1
    assert (skewed == 0).mean() > 0.4


def test_the_cap_keeps_sizes_similar() -> None:
    sizes = {
        capped: [
            np.std([len(p) for p in divide("dirichlet", f"alpha = 0.3, capped = {capped}", seed=seed)])
            for seed in range(10)
        ]
        for capped in ("true", "false")
    }
    assert np.mean(sizes["true"]) < 0.8 * np.mean(sizes["false"])


def test_a_full_client_gets_nothing_more() -> None:
    # the classes are dealt in ascending order: a client that is full before a class starts has none of it
    for seed in range(20):
        counts = class_counts(divide("dirichlet", "alpha = 0.3", seed=seed))
        before = np.cumsum(counts, axis=1) - counts
        assert (counts[before >= 100] == 0).all()


def test_the_published_setting_has_the_published_shape() -> None:
    # CIFAR-10, 100 clients, alpha 0.5, at least 100 examples: one published draw has median 510, 18.9 % empty cells
    labels = np.arange(50_000) % 10
    parts = [divide("dirichlet", "alpha = 0.5, min_size = 100", 100, labels, seed) for seed in range(3)]
    counts = np.concatenate([class_counts(part, labels) for part in parts])
    assert abs(np.median(counts.sum(1)) - 510) < 40
    assert abs((counts == 0).mean() - 0.189) < 0.05


def test_quantity_skew_has_uneven_sizes_of_even_classes() -> None:
    parts = divide("quantity-skew", "alpha = 1.0", 4, np.arange(40_000) % 10)
    sizes = np.array([len(part) for part in parts])
    assert sizes.max() > 1.5 * sizes.min()
    counts = class_counts(parts, np.arange(40_000) % 10)
    assert (abs(counts / sizes[:, None] - 0.1) < 4.5 * np.sqrt(0.09 / sizes[:, None])).all()


def test_shards_are_equal_and_of_few_classes() -> None:
    parts = divide("shards", "shards_per_client = 2")
    assert {len(part) for part in parts} == {100}
    assert (class_counts(parts) > 0).sum(1).max() <= 2


@pytest.mark.parametrize(("num_clients", "classes_per_client"), [(10, 1), (10, 3), (5, 2), (7, 10), (20, 4)])
def test_pathological_clients_have_their_number_of_classes(num_clients: int, classes_per_client: int) -> None:
    counts = class_counts(divide("pathological", f"classes_per_client = {classes_per_client}", num_clients))
    assert ((counts > 0).sum(1) == classes_per_client).all()
    for column in counts.T:
        assert np.ptp(column[column > 0]) <= 1
    assert np.ptp((counts > 0).sum(0)) <= 1


def test_bernoulli_dirichlet_with_p_one_is_an_uncapped_dirichlet() -> None:
    counts = class_counts(divide("bernoulli-dirichlet", "p = 1.0, alpha = 1e6"))
    assert abs(counts - 10).max() <= 1


def test_clients_have_classes_with_probability_p_given_one() -> None:
    has = BernoulliDirichlet(p=0.3, alpha=1.0).draw_classes(4, 40_000, rng(1))
    assert has.any(axis=1).all()
    # P(class | at least one class) = p / (1 - (1 - p)^K), for each class alike
    np.testing.assert_allclose(has.mean(0), 0.3 / (1 - 0.7**4), atol=0.012)
    both = 0.3**2 / (1 - 0.7**4)
    np.testing.assert_allclose((has[:, 0] & has[:, 3]).mean(), both, atol=0.01)


def test_even_a_tiny_p_ends() -> None:
    has = BernoulliDirichlet(p=1e-12, alpha=1.0).draw_classes(5, 1000, rng(1))
    assert (has.sum(1) == 1).all()
    assert has.sum(0).min() > 120


@pytest.mark.parametrize(("name", "args"), RANDOM)
def test_examples_of_a_class_are_dealt_by_chance(name: str, args: str) -> None:
    args = args.replace("classes_per_client = 3", "classes_per_client = 1")
    for part in divide(name, args, 3, np.zeros(300, dtype=np.int64)):
        assert len(part) < 3 or np.diff(part).max() > 1, "a run of neighbours"


def test_the_odd_example_of_a_class_goes_to_a_random_client() -> None:
    sizes = {
        tuple(map(len, divide("pathological", "classes_per_client = 1", 3, np.zeros(4, int), s))) for s in range(40)
    }
    assert sizes == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}


def test_natural_groups_become_clients_in_sorted_order() -> None:
    groups = np.array(["b-hospital", "a-hospital", "b-hospital", "c"])
    parts = divide("natural", "", 3, np.array([0, 1, 0, 1]), groups=groups)
    assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]
    some = Natural(groups=groups).restricted_to(np.array([0, 1, 3]), 4)
    assert some.owners(np.array([0, 1, 1]), 3, rng(1, "x")).tolist() == [1, 0, 2]
    with pytest.raises(PartitionError, match="expected one group name per example, 5, not 4"):
        Natural(groups=groups).restricted_to(np.array([0, 1]), 5)


def test_masks_can_be_divided_without_looking_at_classes() -> None:
    masks = np.zeros((30, 4, 4), dtype=np.int64)
    assert sorted(np.concatenate(divide("iid", "", 4, masks))) == list(range(30))
    assert sorted(np.concatenate(divide("quantity-skew", "alpha = 5", 4, masks))) == list(range(30))
    with pytest.raises(PartitionError, match=r"shape \(30, 4, 4\).*'iid', 'quantity-skew' or 'natural'"):
        divide("dirichlet", "alpha = 1.0", 4, masks)


def test_deal_cuts_in_proportion() -> None:
    owners = np.full(12, -1)
    deal(owners, np.array([11, 10, 9, 8, 3, 2, 1, 0]), np.array([5, 7, 9]), np.array([2.0, 0.0, 2.0]))
    assert owners.tolist() == [9, 9, 9, 9, -1, -1, -1, -1, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("name", "args", "num_clients", "message"),
    [
        ("iid", "", 0, "must be at least 1, not 0"),
        ("iid", "", 1001, "1000 examples are not enough for 1001 clients of at least 1; take fewer clients"),
        ("iid", "min_size = 101", 10, "not enough for 10 clients of at least 101.*a smaller min_size"),
        (
            "dirichlet",
            "alpha = 0.001, min_size = 95, capped = false",
            10,
            "in 1000 draws.*an alpha above 0.001, or a min_size below 95",
        ),
        ("quantity-skew", "alpha = 0.01, min_size = 50", 10, "in 1000 draws.*an alpha above 0.01"),
        ("bernoulli-dirichlet", "p = 0.001, alpha = 1", 5, "found no client in 1000 draws.*a p above 0.001"),
        ("bernoulli-dirichlet", "p = 0.9, alpha = 0.01, min_size = 50", 10, "at best the smallest had [0-9]+"),
        ("shards", "shards_per_client = 101", 10, "need 1010 examples.*fewer shards_per_client"),
        ("pathological", "classes_per_client = 11", 10, "and at most 10"),
        ("pathological", "classes_per_client = 1", 9, "must be at least their ratio"),
    ],
)
def test_impossible_partitions_name_the_remedy(name: str, args: str, num_clients: int, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        divide(name, args, num_clients)


def test_small_classes_do_not_go_round_in_a_pathological_partition() -> None:
    with pytest.raises(PartitionError, match=r"at best the smallest had 0.*fewer classes_per_client"):
        divide("pathological", "classes_per_client = 1", 4, np.array([0] + [1] * 99))


@pytest.mark.parametrize(
    ("groups", "labels", "args", "message"),
    [
        (["a", "b", "a"], [0, 1, 0], "", "in 2 groups, but there are 3 clients; set the number of clients to 2"),
        (["a", "b"], [0, 1, 0], "", "one group name per example, 3, not 2"),
        (["a", "b", "c", "c", "b", "b"], [0] * 6, "min_size = 2", "at best the smallest had 1.*join small groups"),
    ],
)
def test_groups_that_do_not_fit_are_explained(groups: list[str], labels: list[int], args: str, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        divide("natural", args, 3, np.array(labels), groups=groups)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("dirichlet", "alpha = 0.0", "alpha must be a number above 0"),
        ("dirichlet", "alpha = nan", "alpha must be a number above 0"),
        ("dirichlet", "alpha = inf", "alpha must be a number above 0"),
        ("dirichlet", "alpha = true", "alpha must be a number, not True"),
        ("dirichlet", "alpha = 1, min_size = 0", "min_size must be a whole number of at least 1"),
        ("dirichlet", "alpha = 1, min_size = 2.5", "min_size must be a whole number"),
        ("dirichlet", "", "alpha"),
        ("shards", "shards_per_client = 0", "shards_per_client must be a whole number"),
        ("pathological", 'classes_per_client = "2"', "classes_per_client must be a whole number"),
        ("bernoulli-dirichlet", "p = 1.5, alpha = 1", "p must be a probability"),
        ("bernoulli-dirichlet", "p = 0, alpha = 1", "p must be a probability"),
        ("dirichelt", "alpha = 1", "did you mean 'dirichlet'"),
    ],
)
def test_wrong_arguments_are_explained(name: str, args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        PARTITIONS.build(name, args)
