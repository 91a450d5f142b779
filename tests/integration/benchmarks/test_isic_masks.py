"""The table of losses on wrong masks: what each run is, how Dice is measured, and which learning rate is taken."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from benchmarks import isic_masks
from benchmarks.isic_masks import (
    LOSSES_SHOWN,
    RATES,
    Case,
    LesionMasks,
    Outcome,
    best_rates,
    run_case,
    table,
    tuning_cases,
)
from tasks.config import read
from tasks.metrics import image_dice
from tests.site_data import save


def test_dice_is_the_f1_of_each_image() -> None:
    draw = np.random.default_rng(0)
    predicted, masks = draw.random((2, 5, 6, 7)) > 0.6
    masks[3] = predicted[3] = False
    found = image_dice(torch.from_numpy(predicted).long(), torch.from_numpy(masks).long(), 2)
    expected = [
        f1_score(mask.ravel(), guess.ravel(), zero_division=1.0) for mask, guess in zip(masks, predicted, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected)


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data folder with 20 images of different grey, all of them with a bright square as lesion."""
    monkeypatch.setattr(isic_masks, "PARTS", {"train": (0, 8), "validation": (8, 12), "test": (12, 18)})
    monkeypatch.setenv("WINNOW_DATA", str(tmp_path))
    folder, mask = tmp_path / "isic2017" / "train", np.zeros((16, 16))
    mask[4:12, 4:12] = 255
    for number in range(20):
        save(folder / "image" / f"{number:02}.png", np.full((16, 16, 3), 10 * number) + (mask[..., None] > 0) * 50)
        save(folder / "mask256" / f"{number:02}_segmentation.png", mask)
    return tmp_path


def test_no_image_is_in_two_parts(few: Path) -> None:
    tuned, tested = LesionMasks(few, "validation", 16), LesionMasks(few, "test", 16)
    parts = [tuned.train_examples(), tuned.test_examples(), tested.test_examples()]
    numbers = [(part.features[:, 0, 0, 0] // 10).tolist() for part in parts]
    assert [len(part) for part in numbers] == [8, 4, 6]
    assert len({number for part in numbers for number in part}) == 18
    assert tuned.example_names(tuned.train_ids()) == [f"image/{number:02}.png" for number in numbers[0]]


@pytest.mark.usefixtures("few")
def test_a_run_is_measured_on_its_part() -> None:
    outcome = run_case(Case("t-loss", 0.5, 0.5, 1e-2, 1, "test", 1, 16))
    assert 0 <= outcome.dice <= 100
    assert 0 < outcome.mean_iou <= 100


def test_the_rate_is_that_of_the_best_dice_and_rows_differ_by_the_loss_alone() -> None:
    cases = tuning_cases(list(LOSSES_SHOWN), 1, 32)
    tuned = {case: Outcome(50.0 - abs(case.rate - RATES[1]), 1.0, 40.0, 1.0) for case in cases}
    assert best_rates(tuned) == dict.fromkeys(LOSSES_SHOWN, RATES[1])
    flats = [case.configuration() for case in cases if case.rate == RATES[0]]
    assert all(read(flat)[1] == [] for flat in flats)
    differing = {key for flat in flats for key in flat if any(flat[key] != other.get(key) for other in flats)}
    assert differing == {"loss.name", "strategy.aggregator"}


def test_one_seed_has_the_error_over_images_and_several_the_deviation_over_seeds() -> None:
    cases = [Case("ce", 0.5, 0.5, 1e-2, 15, "test", seed, 32) for seed in (1, 2)]
    outcomes = [Outcome(80.0, 1.5, 70.0, 9.0), Outcome(82.0, 1.6, 71.0, 9.0)]
    assert "| ce | 0.01 | 80.00 ± 1.50 |" in table({cases[0]: outcomes[0]})
    assert "| ce | 0.01 | 81.00 ± 1.41 |" in table(dict(zip(cases, outcomes, strict=True)))
