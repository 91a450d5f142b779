"""Detectors of noisy clients: what they say on data made for it, and in every corner."""

import numpy as np
import pytest
from scipy.stats import chi2

from strategies.detection import DETECTORS, Detection, Groups, Official, Robust, detect, read_profile
from strategies.detection.base import Counts, Detector, Flags, one_group
from strategies.detection.detectors import TwoGroups, evidence_for_two, fit_two, within_reach
from strategies.detection.profiles import client_levels, min_max
from strategies.gram import Doubles
from tasks.plugins import PluginError
from tests.detection_cases import GRID, TWO_KINDS, profiles

BOTH = [Robust(), Official(), Groups()]


def one_class_each(clients: int) -> tuple[Doubles, Counts]:
    """Client k has examples of class k only, with a loss of k."""
    return np.diag(np.arange(clients, dtype=np.float64)), np.eye(clients, dtype=np.int64) * 30


@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("seed", range(5))
def test_two_kinds_of_clients_are_told_apart(detector: Detector, seed: int):
    found = detect(detector, *profiles(TWO_KINDS, seed=seed, alpha=10.0))
    assert found.components == 2
    assert found.noisy.tolist() == (TWO_KINDS > 0).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_grid_of_rates_is_divided_near_its_middle(seed: int):
    found = detect(Robust(), *profiles(GRID, seed=seed))
    assert found.components == 2
    assert np.mean(found.noisy == (np.median(GRID) < GRID)) >= 0.8
    assert found.noisy[-5:].all()
    assert not found.noisy[:5].any()


@pytest.mark.parametrize("alpha", [0.3, 1.0, 100.0])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_clients_of_one_kind_are_one_group(alpha: float, rate: float, seed: int):
    found = detect(Robust(), *profiles(np.full(20, rate), seed=seed, alpha=alpha))
    assert found.components == 1
    assert not found.noisy.any()
    assert not found.posterior.any()
    assert "prefers one group" in found.reason


@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("clients", [1, 2, 3])
def test_fewer_than_four_clients_are_never_two_groups(detector: Detector, clients: int):
    found = detect(detector, *profiles(np.linspace(0, 0.8, clients)))
    assert (found.components, found.noisy.tolist()) == (1, [False] * clients)
    assert f"{clients} clients" in found.reason


def test_four_clients_can_be_two_groups():
    found = detect(Robust(), *profiles(np.array([0.0, 0.6, 0.0, 0.6]), alpha=100.0))
    assert found.noisy.tolist() == [False, True, False, True]


CORNERS: dict[str, tuple[Doubles, Counts]] = {
    "all equal": (np.ones((8, 10)), np.full((8, 10), 20)),
    "all losses 0": (np.zeros((8, 10)), np.full((8, 10), 20)),
    "100 classes, 10 clients": profiles(np.linspace(0, 0.6, 10), classes=100),
    "a constant class": (
        np.hstack([profiles(GRID)[0], np.ones((20, 1))]),
        np.hstack([profiles(GRID)[1], np.ones((20, 1), np.int64)]),
    ),
    "a class that nobody has": (
        np.hstack([profiles(GRID)[0], np.zeros((20, 1))]),
        np.hstack([profiles(GRID)[1], np.zeros((20, 1), np.int64)]),
    ),
    "one class a client": one_class_each(6),
    "one class in all": (np.array([[0.2], [0.3], [2.0], [2.1], [0.25]]), np.full((5, 1), 50)),
    "all labels wrong everywhere": profiles(np.ones(10)),
    "one example a client": (np.eye(5) * [0.1, 0.2, 3.0, 0.1, 0.2], np.eye(5, dtype=np.int64)),
    "the largest losses": (np.full((6, 4), 1e6) * np.arange(1, 7)[:, None] / 6, np.full((6, 4), 10)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("case", CORNERS)
def test_no_corner_breaks_a_detector(detector: Detector, case: str):
    losses, counts = CORNERS[case]
    found = detect(detector, losses, counts)
    assert found.posterior.shape == found.noisy.shape == (len(losses),)
    assert ((found.posterior >= 0) & (found.posterior <= 1)).all()
    if found.components == 1:
        assert not found.noisy.any()


def test_where_all_are_equal_or_all_labels_are_wrong_nobody_is_called_noisy():
    for case in ("all equal", "all losses 0", "all labels wrong everywhere"):
        assert detect(Robust(), *CORNERS[case]).components == 1


def test_a_hard_class_does_not_make_a_client_noisy_but_the_mean_loss_would():
    counts = np.full((10, 4), 25)
    counts[9] = [97, 1, 1, 1]
    losses = np.tile([2.0, 0.2, 0.2, 0.2], (10, 1))
    means = (losses * counts).sum(1) / counts.sum(1)
    assert means[9] > 2.5 * means[0]
    assert detect(Robust(), losses, counts).components == 1


def test_a_missing_class_says_nothing_about_a_client():
    losses, counts = profiles(TWO_KINDS, alpha=100.0)
    gone = counts.copy()
    gone[-1, :8] = 0
    assert detect(Robust(), losses, gone).noisy.tolist() == (TWO_KINDS > 0).tolist()
    assert not detect(Official(), losses, gone).noisy[-1], "it is taken for the cleanest of each missing class"


@pytest.mark.parametrize("lie", [0.0, 50.0, 1e6])
def test_a_liar_cannot_hide_the_noisy_clients(lie: float):
    losses, counts = profiles(TWO_KINDS, alpha=10.0)
    losses[0] = lie
    found = detect(Robust(), losses, counts)
    assert found.noisy[1:].tolist() == (TWO_KINDS > 0)[1:].tolist()
    losses[0, 1:] = 0.0
    assert detect(Robust(), losses, counts).noisy[1:].tolist() == (TWO_KINDS > 0)[1:].tolist()


def test_a_larger_tolerance_sees_less():
    losses, counts = profiles(np.repeat([0.0, 0.1], 10), alpha=100.0)
    assert detect(Robust(tolerance=0.01), losses, counts).components == 2
    assert detect(Robust(tolerance=0.5), losses, counts).components == 1


def test_missing_and_constant_classes_in_the_published_scaling():
    losses = np.array([[1.0, 5.0, 9.0, 0.0], [3.0, 5.0, 0.0, 0.0], [2.0, 5.0, 7.0, 0.0]])
    counts = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    assert min_max(losses, counts).tolist() == [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]


def test_what_lies_out_of_reach_is_moved_and_what_is_missing_stays():
    values = np.array([[1.0, 0.0], [2.0, 7.0], [3.0, 0.0], [4.0, 7.0], [100.0, 7.0]])
    moved = within_reach(values, np.array([[1, 0], [1, 1], [1, 0], [1, 1], [1, 1]], bool), 0.01)
    assert moved[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 7.0]  # quartiles 2 and 4, reach 1.5 x 2
    assert moved[:, 1].tolist() == values[:, 1].tolist()
    few = within_reach(np.array([[0.0], [0.0], [0.0], [0.0], [9.0], [-9.0]]), np.ones((6, 1), bool), 0.1)
    assert few[:, 0].tolist() == pytest.approx([0, 0, 0, 0, 1.5 * 16 * 0.1, -1.5 * 16 * 0.1])


def test_the_posterior_is_one_half_in_the_middle_and_rises():
    groups = TwoGroups(0.0, 2.0, 0.5)
    posterior = groups.posterior(np.array([-1.0, 0.0, 1.0, 2.0, 3.0]))
    assert posterior[2] == 0.5
    assert (np.diff(posterior) > 0).all()
    assert groups.widened(np.array([-1.0, 1.0, 1.0, 3.0])).spread == pytest.approx(1.0, abs=1e-6)


def test_groups_are_as_wide_as_their_members_lie_around_their_means() -> None:
    values = np.array([1.0, 1.4, 5.0, 5.8])
    found = TwoGroups(1.2, 5.4, 0.1).widened(values)  # so far apart that each value belongs to one of them
    assert found.spread == pytest.approx(np.sqrt(np.mean([0.2**2, 0.2**2, 0.4**2, 0.4**2])))
    assert (found.lower, found.upper) == (1.2, 5.4)
    assert TwoGroups(1.2, 5.4, 0.9).widened(values).spread == 0.9


def test_equal_values_are_one_group_and_far_ones_two():
    assert evidence_for_two(np.ones(9), fit_two(np.ones(9), 0.1)) == pytest.approx(-np.log(9))
    far = np.array([0.0, 0.0, 5.0, 5.0])
    fit = fit_two(far, 0.1)
    assert (fit.lower, fit.upper) == pytest.approx((0.0, 5.0), abs=1e-9)
    assert evidence_for_two(far, fit) > 1000


def test_levels_are_nearly_free_of_classes_where_clients_share_them():
    truth = np.array([0.0, 0.5, 1.0, 1.5])
    classes = np.array([0.1, 0.7, 0.4])
    counts = np.array([[50, 10, 40], [5, 90, 5], [30, 30, 40], [1, 1, 98]]) * 1000
    levels, error = client_levels(truth[:, None] + classes, counts)
    np.testing.assert_allclose(levels - levels[0], truth, atol=0.15)
    assert error < 0.1


GOOD = {"class-losses": [0.5, 0.0, 1.5], "class-counts": [3, 0, 7]}


def test_a_sound_answer_is_read():
    losses, counts = read_profile(GOOD, 10)
    assert (losses.tolist(), counts.tolist()) == ([0.5, 0.0, 1.5], [3, 0, 7])


def test_the_largest_loss_and_all_examples_of_one_class_are_sound():
    losses, counts = read_profile({"class-losses": [1e6, 0.0], "class-counts": [10, 0]}, 10)
    assert (losses.tolist(), counts.tolist()) == ([1e6, 0.0], [10, 0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class-losses": [0.5, 0.0, 1e6 + 0.5]}, "finite numbers from 0 to 1e"),
        ({"class-losses": [0.5, 0.0, -1e-9]}, "finite numbers from 0 to 1e"),
        ({"class-losses": None}, "one number of each for every class"),
        ({"class-losses": 1.0}, "one number of each for every class"),
        ({"class-losses": [0.5, 0.0]}, "one number of each for every class"),
        ({"class-losses": [], "class-counts": []}, "one number of each for every class"),
        ({"class-losses": [0.5, 0.0, float("inf")]}, "finite numbers from 0 to 1e"),
        ({"class-losses": [0.5, 0.0, 1e7]}, "finite numbers from 0 to 1e"),
        ({"class-losses": [0.5, 0.0, -1.0]}, "finite numbers from 0 to 1e"),
        ({"class-losses": [0.5, 0.0, "x"]}, "finite numbers from 0 to 1e"),
        ({"class-losses": [0.5, 0.0, True]}, "finite numbers from 0 to 1e"),
        ({"class-counts": [3, 0, 8]}, "add up to its 10 examples"),
        ({"class-counts": [13, -10, 7]}, "add up to its 10 examples"),
        ({"class-counts": [3.0, 0.0, 7.0]}, "add up to its 10 examples"),
        ({"class-counts": [10**400, 0, 7]}, "add up to its 10 examples"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(changes: dict[str, object], reason: str):
    with pytest.raises(ValueError, match=reason):
        read_profile(GOOD | changes, 10)


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="two tables"):
        detect(Robust(), np.ones((5, 3)), np.ones((5, 2), np.int64))
    with pytest.raises(ValueError, match="at least one example"):
        detect(Robust(), np.ones((5, 3)), np.zeros((5, 3), np.int64))
    with pytest.raises(ValueError, match="counts of at least 0"):
        detect(Robust(), np.ones((5, 3)), np.array([[3, 3, -1]] * 5))
    with pytest.raises(ValueError, match="two tables"):
        detect(Robust(), np.ones((5, 3, 1)), np.ones((5, 3, 1), np.int64))


class Shown(Detector):
    """Keeps what it is shown."""

    def divide(self, losses: Doubles, counts: Counts) -> Detection:
        self.losses = losses
        return one_group(len(losses), "")


def test_a_detector_is_not_shown_what_was_sent_for_a_class_without_examples():
    losses, counts = np.arange(12.0).reshape(4, 3) + 1, np.ones((4, 3), np.int64)
    counts[1, 2] = 0
    shown = Shown()
    assert detect(shown, losses, counts).posterior.tolist() == [0.0] * 4
    np.testing.assert_array_equal(shown.losses, np.where(counts > 0, losses, 0))


@pytest.mark.parametrize(("found", "winner", "agreed"), [("ABB", 1, 2), ("AB", 0, 1), ("ABCB", 1, 2), ("A", 0, 1)])
def test_the_most_frequent_set_wins_and_the_first_of_equally_many(
    found: str, winner: int, agreed: int, monkeypatch: pytest.MonkeyPatch
):
    states = []

    def fit(profiles: Doubles, state: int) -> tuple[Doubles, Flags]:
        states.append(state)
        return np.full(5, state / 10), np.arange(5) == "ABC".index(found[state])

    monkeypatch.setattr("strategies.detection.detectors._fit", fit)
    result = detect(Official(fits=len(found)), *profiles(GRID[:5]))
    assert states == list(range(len(found)))
    assert result.posterior.tolist() == [winner / 10] * 5
    assert result.noisy.tolist() == (np.arange(5) == "ABC".index(found[winner])).tolist()
    assert result.reason == f"{agreed} of {len(found)} mixtures agree"


def halves(classes: int) -> tuple[Doubles, Counts]:
    """Two clients with a loss of 0.5 and two with 1.5, without any chance."""
    return np.repeat([0.5, 0.5, 1.5, 1.5], classes).reshape(4, classes), np.full((4, classes), 10)


@pytest.mark.parametrize(("classes", "spread"), [(1, np.log(2)), (2, np.log(2)), (5, np.log(5))])
def test_the_spread_and_the_evidence_are_those_of_the_tolerance_where_nothing_is_left_to_chance(
    classes: int, spread: float
):
    """Densities by hand: everybody lies on a mean, of one group half a nat off it."""
    natural = 0.025 * spread
    two = 4 * np.log(0.5)
    one = -4 * 0.5**2 / (2 * natural**2)
    reason = detect(Robust(), *halves(classes)).reason
    assert reason.startswith(f"gap 1.000 nats, spread {natural:.3f}, BIC prefers two groups")
    assert float(reason.split()[-1]) == pytest.approx(2 * (two - one) - np.log(4), abs=0.06)
    found = detect(Groups(), *halves(classes))
    free = 2 * np.log(4) - 2 * (-2 * (np.log(2 * np.pi * 0.25) + 1))
    fixed = 4 * np.log(4) - 2 * 4 * (np.log(0.5) - np.log(2 * np.pi * natural**2) / 2)
    assert f"(above the best by {free - fixed:.1f}, 0.0)" in found.reason
    assert found.noisy.tolist() == [False, False, True, True]


def test_the_error_of_a_level_is_the_robust_standard_error_of_the_regression():
    """The whole system in one matrix: least squares with the penalty as rows, degrees of freedom by the rank."""
    losses, counts = profiles(GRID[:8], classes=4, seed=3, alpha=0.7)
    clients, classes = np.nonzero(counts)
    weights = counts[clients, classes].astype(np.float64)
    design = np.hstack([np.eye(8)[clients], np.eye(4)[classes]])
    penalty = np.hstack([np.zeros((4, 8)), np.eye(4) * np.sqrt(counts.mean())])
    rows = np.vstack([design * np.sqrt(weights)[:, None], penalty])
    solved = np.linalg.lstsq(rows, np.append(np.sqrt(weights) * losses[clients, classes], np.zeros(4)), rcond=None)[0]
    left = weights * (losses[clients, classes] - design @ solved) ** 2
    lower = solved[:8] <= np.median(solved[:8])
    scale = len(weights) / (len(weights) - np.linalg.matrix_rank(design))
    variance = np.median(left[lower[clients]]) / chi2.median(1) * scale
    levels, error = client_levels(losses, counts)
    assert (counts == 0).any()
    np.testing.assert_allclose(levels, solved[:8], rtol=1e-9)
    assert error == pytest.approx(np.sqrt(variance * np.mean(1 / counts.sum(1))), rel=1e-3)


def test_one_number_that_is_not_explained_is_enough_for_an_error():
    table = np.array([[0.1, 0.5], [0.3, 0.2]])
    assert client_levels(table, np.full((2, 2), 10))[1] > 0
    assert client_levels(table, np.array([[10, 10], [10, 0]]))[1] == 0


def test_detectors_are_built_by_name_and_refuse_senseless_arguments():
    assert DETECTORS.build("robust", "tolerance = 0.1") == Robust(0.1)
    with pytest.raises(PluginError, match="must be above 0"):
        DETECTORS.build("robust", "tolerance = 0.0")
    with pytest.raises(PluginError, match="must be at least 1"):
        DETECTORS.build("official", "fits = 0")
    assert DETECTORS.build("groups", "most = 3") == Groups(3)
    for wrong in ("most = 0", "most = 5", "tolerance = 0.0"):
        with pytest.raises(PluginError, match="must be"):
            DETECTORS.build("groups", wrong)
