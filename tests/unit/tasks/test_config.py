import tomllib

import pytest

from tasks.config import DEFAULTS, FIELDS, PATHS, ConfigError, flatten, nest, parse, to_flat, variants, without_effect
from tasks.settings import Settings
from tests.conftest import ROOT


def test_pyproject_declares_the_same_keys_and_defaults():
    declared = flatten(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"])
    assert declared == DEFAULTS
    assert {key: type(value) for key, value in declared.items()} == {key: type(v) for key, v in DEFAULTS.items()}


def test_defaults_parse_to_the_defaults_and_back():
    assert parse({}) == Settings()
    assert to_flat(Settings()) == DEFAULTS
    assert flatten(nest(DEFAULTS)) == DEFAULTS


@pytest.mark.parametrize(("given", "read"), [("auto", "auto"), ("off", "off"), ("12", "12"), (12, "12")])
def test_a_cohort_is_a_word_or_a_number(given: str | int, read: str):
    assert parse({"train.cohort": given}).train.cohort == read


@pytest.mark.parametrize("given", ["1", 1, "many", "-3", "²", True, 2.0, ""])
def test_a_cohort_of_one_or_of_nonsense_is_refused(given: object):
    with pytest.raises(ConfigError, match=r"train.cohort = .*: must be off, auto or a whole number from 2 on"):
        parse({"train.cohort": given})


@pytest.mark.parametrize("name", ["../up", "a b", ".hidden", "x" * 101, "a/b", "-x", "a\n"])
def test_the_name_of_a_run_can_be_part_of_that_of_a_folder(name: str):
    assert parse({"run.name": "x" * 100}).run.name == "x" * 100
    with pytest.raises(ConfigError, match=r"run.name = .*: must be up to 100 letters, digits, '\.', '_' and '-'"):
        parse({"run.name": name})


def test_every_key_says_what_it_is_about():
    assert all(len(item.metadata["about"]) > 5 for item in FIELDS.values())


def test_all_errors_come_at_once():
    flat = {"train.epochs": 0, "trian.epochs": 2, "noise.rates": 3, "run.monitor": "acuracy", "seed": True}
    with pytest.raises(ConfigError) as caught:
        parse(flat)
    text = str(caught.value)
    assert text.startswith("5 errors in the configuration:")
    assert "unknown key 'trian.epochs'; did you mean 'train.epochs'?" in text
    assert "train.epochs = 0: must be at least 1" in text
    assert "noise.rates = 3: must be a text in quotes" in text
    assert "did you mean 'accuracy'? choices: accuracy, balanced-accuracy, dice, loss, macro-f1, mean-iou" in text
    assert "seed = True: must be a whole number" in text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("federation.num-clients", 0, "at least 1"),
        ("federation.fraction-train", 1.5, "above 0.0 and at most 1.0"),
        ("evaluate.validation", 1.0, "at least 0.0 and below 1.0"),
        ("federation.fraction-train", 0.0, "above 0.0"),
        ("train.learning-rate", float("nan"), "finite"),
        ("train.learning-rate", float("inf"), "finite"),
        ("train.learning-rate", "0.1", "must be a number"),
        ("train.drop-last", 1, "true or false"),
        ("train.optimizer", "sdg", "did you mean 'sgd'?"),
        ("num-server-rounds", 2.0, "whole number"),
        ("seed", -1, "at least 0 and at most 9223372036854775807"),
        ("seed", float("inf"), "whole number"),
        ("train.learning-rate", -float("inf"), "finite"),
        ("train.threads", 2**40, "at least 0 and at most 1024"),
        ("federation.num-clients", 10**8, "at most 1000000"),
        ("federation.round-timeout", 1e300, "above 0.0 and at most 31536000.0"),
        ("train.optimizer", "SGD", "did you mean 'sgd'?"),
    ],
)
def test_a_bad_value_names_its_limit(key: str, value: object, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        parse({key: value})  # type: ignore[dict-item]
    assert len(caught.value.errors) == 1
    assert caught.value.errors[0].startswith(f"{key} = {value!r}")


PATH_KEYS = ("run.output-dir", "run.resume", "task.data-path", "task.cache-path", "task.weights-path")


def test_every_path_may_start_with_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert to_flat(parse(dict.fromkeys(PATH_KEYS, "~/x"))) == {**DEFAULTS, **dict.fromkeys(PATH_KEYS, "/home/me/x")}
    assert {name for name in FIELDS if name.endswith(("-dir", "-path", "resume"))} == set(PATH_KEYS) == set(PATHS)
    with pytest.raises(ConfigError, match="no home folder ~nobody2 is known") as caught:
        parse(dict.fromkeys(PATH_KEYS, "~nobody2/x"))
    assert len(caught.value.errors) == len(PATH_KEYS)


def test_a_key_in_another_case_is_hinted_at():
    with pytest.raises(ConfigError, match=r"unknown key 'TRAIN.Epochs'; did you mean 'train.epochs'\?"):
        parse({"TRAIN.Epochs": 2})


def test_a_whole_number_is_a_number():
    assert parse({"train.learning-rate": 1}).train.learning_rate == 1.0


@pytest.mark.parametrize("key", [key for key, item in FIELDS.items() if item.type is int])
def test_a_whole_number_has_at_most_64_bits(key: str):
    with pytest.raises(ConfigError, match=f"{key} = {2**63}: must be .*at most [0-9]+$"):
        parse({key: 2**63})
    assert key.startswith(("federation.", "train.threads")) or parse({key: 2**63 - 1})


@pytest.mark.parametrize(("key", "said"), [("seed", "must be at least 0"), ("train.learning-rate", "must be finite")])
@pytest.mark.parametrize("value", [16**400, 16**9000], ids=["481 digits", "10837 digits"])
def test_a_number_that_is_beyond_a_float_or_cannot_be_printed_is_refused(key: str, said: str, value: int):
    with pytest.raises(ConfigError, match=f"{key} = a number of about [0-9]+ digits: {said}"):
        parse({key: value})


def test_arms_are_toml_tables():
    text = 'fedavg = { loss.name = "ce", train.epochs = 3 }\nwinnow = {}'
    assert variants({"variants": text}) == {"fedavg": {"loss.name": "ce", "train.epochs": 3}, "winnow": {}}
    assert variants({}) == {"": {}}
    with pytest.raises(ConfigError, match="expected lines such as"):
        variants({"variants": "fedavg: loss"})
    with pytest.raises(ConfigError, match="every line must be"):
        variants({"variants": "fedavg = 3"})
    with pytest.raises(ConfigError, match=r"variant 'a': federation.num-clients must be the same"):
        variants({"variants": "a = { federation.num-clients = 3 }"})


def test_a_key_without_effect_warns():
    settings = parse({"train.optimizer": "adam", "train.momentum": 0.5, "noise.name": "none", "noise.rates": "uniform"})
    assert [issue.line for issue in without_effect(settings)] == [
        "train.momentum has no effect: only SGD has momentum",
        "noise.rates has no effect: there is no noise",
    ]
    assert without_effect(parse({"train.optimizer": "adam"})) == []
