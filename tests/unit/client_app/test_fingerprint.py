"""Equal data of two sites shows, and nothing else does."""

from dataclasses import replace

import numpy as np
import torch

from client_app.node import FINGERPRINT_BITS, fingerprint
from tasks.base import ClientData

DATA = ClientData(
    0, torch.arange(24, dtype=torch.uint8).reshape(4, 1, 2, 3), np.array([0, 1, 1, 0]), np.arange(4), num_classes=2
)


def test_equal_data_of_other_clients_has_the_same_number_in_a_run_and_another_one_in_the_next() -> None:
    same = replace(DATA, client=3, features=DATA.features.clone(), labels=DATA.labels.copy())
    assert fingerprint(DATA, "monday") == fingerprint(same, "monday")
    assert fingerprint(DATA, "monday") != fingerprint(DATA, "tuesday")
    assert 0 <= fingerprint(DATA, "monday") < 2**FINGERPRINT_BITS


def test_each_pixel_label_shape_and_kind_of_number_counts() -> None:
    pixel, label = DATA.features.clone(), DATA.labels.copy()
    pixel[3, 0, 1, 2] += 1
    label[2] = 0
    others = [
        replace(DATA, features=pixel),
        replace(DATA, labels=label),
        replace(DATA, features=DATA.features.reshape(4, 1, 3, 2)),
        replace(DATA, features=DATA.features.to(torch.int8)),
        replace(DATA, features=DATA.features.flip(0)),
    ]
    numbers = {fingerprint(data, "run") for data in [DATA, *others]}
    assert len(numbers) == len(others) + 1


def test_words_and_masks_have_numbers_too() -> None:
    words = replace(DATA, features=torch.arange(8).reshape(4, 2))
    masks = replace(DATA, labels=np.zeros((4, 2, 3), np.int64))
    assert len({fingerprint(data, "run") for data in (DATA, words, masks)}) == 3
