"""Wrong names of built-in parts are found in the source, in the words of the check that builds all parts."""

import sys

import pytest

from client_app.losses import PRESETS
from server_app.cli import config, names
from server_app.cli.config import check_keys
from server_app.cli.names import KINDS, unknown_names
from server_app.validation.config import check_variants
from tasks.config import DEFAULTS, FIELDS, ConfigError, Flat, overlay
from tests.registries import registries

DEMO = {**DEFAULTS, "variants": 'fedavg = { loss.name = "ce", strategy.aggregator = "mean" }\nwinnow = {}'}


def lines(flat: Flat, full: bool) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_variants(flat) if full else check_keys(flat, DEFAULTS)
    return caught.value.errors


@pytest.mark.parametrize("key", KINDS)
def test_it_says_what_the_full_check_says(key: str) -> None:
    flat = overlay(DEFAULTS, {key: f"{DEFAULTS[key]}ss"})  # close to a name, or to none
    assert lines(flat, full=False) == lines(flat, full=True)


def test_every_setting_that_names_a_part_is_looked_up() -> None:
    named = {key for key, field in FIELDS.items() if "package.module:Name" in field.metadata["about"]}
    assert named <= KINDS.keys()
    assert {key for key in FIELDS if key.endswith(".name")} - {"run.name"} <= KINDS.keys()


def test_the_names_are_those_that_the_registries_hold() -> None:
    held = {registry.listed: [entry.name for entry in registry.entries()] for registry in registries()}
    for kind in set(KINDS.values()):
        assert sorted(names.names(kind)) == (sorted(PRESETS) if kind == "preset" else held[kind])


def test_the_variants_that_have_it_are_named() -> None:
    method, loss = sorted(
        unknown_names({**DEMO, "method.name": "nope", "loss.name": "nope"}, DEMO), key=lambda i: i.variants
    )
    assert method.line.startswith("method: unknown client method 'nope'"), "all have it"
    assert loss.line.startswith("variant winnow: loss: unknown loss 'nope'")
    [rule] = unknown_names({**DEMO, "variants": 'a = { strategy.aggregator = "nope" }\nb = {}'}, DEMO)
    assert rule.line.startswith("variant a: strategy: unknown aggregator 'nope'")


def test_import_paths_and_names_that_stand_for_none_are_left_to_the_full_check() -> None:
    flat = {**DEFAULTS, "loss.name": "my.own:Loss", "noise.name": "none", "attack.name": "none", "model.name": "auto"}
    assert unknown_names(flat, {**flat, "noise.name": "symmetric", "attack.name": "alie", "model.name": "mlp"}) == []


def test_what_belongs_to_a_wrong_name_needs_no_look_at_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "server_app.validation.config", None)  # importing it fails
    own = {"loss.name": "nope", "loss.args": "q = 1", "loss.preset": "cifar-100", "train.epochs": 0}
    assert len(lines({**DEFAULTS, **own}, full=False)) == 2
    with pytest.raises(ImportError):
        check_keys({**DEFAULTS, **own, "method.name": "fedprox"}, DEFAULTS)


def test_a_wrong_name_hides_no_other_error() -> None:
    assert len(lines({**DEFAULTS, "loss.name": "nope", "method.name": "fedprox", "method.args": "mu = -1"}, False)) == 2


def test_a_sound_configuration_reads_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "names", None)
    config.check_keys(DEMO, DEMO)
    config.check_keys({**DEMO, "seed": 5}, DEMO)
