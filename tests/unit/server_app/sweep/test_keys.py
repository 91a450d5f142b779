"""Content keys: what changes them, and what does not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from server_app.sweep import keys
from server_app.sweep.keys import changed_settings, code_digest, data_digest, run_key
from tasks.base import Examples
from tasks.config import DEFAULTS, overlay, parse, to_flat
from tasks.settings import TaskSettings

BASE = run_key(DEFAULTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"train.epochs": 1},
        {"loss.name": "gce"},
        {"loss.args": "q = 0.5", "loss.name": "gce"},
        {"noise.rates-args": "max = 0.1"},
        {"train.threads": 2},
        {"audit.enabled": False},
    ],
)
def test_what_can_change_a_run_changes_its_key(changes: dict[str, object]) -> None:
    found = run_key(overlay(DEFAULTS, changes))
    assert found.content != BASE.content
    assert found.whole != BASE.whole
    assert found.code == BASE.code


@pytest.mark.parametrize(
    "changes", [{"run.output-dir": "/elsewhere"}, {"task.cache-path": "/cache"}, {"train.epochs": 5}]
)
def test_what_changes_no_number_leaves_the_key(changes: dict[str, object]) -> None:
    assert run_key(overlay(DEFAULTS, changes)) == BASE


def test_the_same_settings_come_back_from_those_that_differ() -> None:
    flat = overlay(DEFAULTS, {"partition.name": "iid", "loss.name": "gce", "loss.args": "q = 0.5", "seed": 3})
    changed = changed_settings(parse(flat))
    assert changed == {"partition.name": "iid", "loss.name": "gce", "loss.args": "q = 0.5", "seed": 3}
    assert to_flat(parse(changed)) == to_flat(parse(flat))
    assert run_key(changed) == run_key(flat)


def test_data_are_known_by_every_example_and_label(monkeypatch: pytest.MonkeyPatch) -> None:
    class Few:
        encoder_digest = ""

        def __init__(self, features: torch.Tensor, labels: list[int], test: int = 0) -> None:
            self.raw, self.test = self, test
            self.found = Examples(features, np.array(labels))

        def train_examples(self) -> Examples:
            return self.found

        def has_test_examples(self) -> bool:
            return bool(self.test)

        def test_examples(self) -> Examples:
            return self.found

    zeros, one = torch.zeros(2, 3), torch.zeros(2, 3)
    one[1, 2] = 1
    tasks = [
        Few(zeros, [0, 1]),
        Few(one, [0, 1]),
        Few(zeros, [0, 0]),
        Few(zeros.reshape(2, 3, 1), [0, 1]),
        Few(zeros, [0, 1], 1),
    ]
    digests = []
    for task in tasks:
        monkeypatch.setattr(keys, "load_task", lambda _, task=task: task)
        digests.append(data_digest.__wrapped__(TaskSettings()))
    assert len(set(digests)) == len(tasks)


def test_the_code_of_a_plug_in_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "my_plug_in.py"
    plugin.write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_digest.__wrapped__(("my_plug_in",))
    assert before == code_digest.__wrapped__(("my_plug_in",)) != code_digest(())
    plugin.write_text("VALUE = 2\n")
    assert code_digest.__wrapped__(("my_plug_in",)) != before
    assert keys.plugin_modules({"loss.name": "my_plug_in:Loss", "seed": 1, "run.callbacks": "'my_plug_in:C' = {}"}) == (
        "my_plug_in",
    )
