"""Configuration of a run as users write it (flat keys, plain values) to `Settings` and back; all errors at once."""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any, Literal, cast

from tasks.arguments import PluginError, did_you_mean, merge_args, parse_args
from tasks.files import user_path
from tasks.issues import ERROR, WARNING, Issue
from tasks.protocol import Mode, PublicError
from tasks.setting_values import Value, shown, value_problem
from tasks.settings import NAME, PrivacySettings, Settings

Flat = dict[str, Value]

REPEAT = "WINNOW_REPEAT"
"""Environment variable: the command that submits a configuration, without its settings; for the record of the run."""

CHECKED = "WINNOW_CHECKED"
"""Environment variable: the :func:`digest` of a configuration that is checked in full before it is submitted."""


class ConfigError(PublicError):
    """All that is wrong with a configuration, one line each."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        self.issues = issues
        self.errors = errors = [issue.line for issue in issues]
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__(f"{count} in the configuration:\n" + "\n".join(f"  - {error}" for error in errors))


def _declared(section: type, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    for item in fields(section):
        name = prefix + item.name.replace("_", "-")
        if isinstance(item.type, type) and is_dataclass(item.type):
            yield from _declared(item.type, f"{name}.")
        else:
            yield name, item


FIELDS: dict[str, Field[Any]] = dict(_declared(Settings))
PATHS = tuple(name for name, item in FIELDS.items() if item.metadata.get("path"))
DEFAULTS: Flat = {name: cast(Value, item.default) for name, item in FIELDS.items()}


def _owner(key: str) -> str:
    section, _, last = key.rpartition(".")
    return f"{section}.name" if last == "args" else key.removesuffix("-args")


OWNERS: dict[str, str] = {key: _owner(key) for key in FIELDS if key.endswith("args")}
"""By the key of arguments, the key that names the component they belong to: ``loss.args`` to ``loss.name``."""


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Flat:
    """Turn nested tables into flat dotted keys: ``{"train": {"epochs": 2}}`` to ``{"train.epochs": 2}``."""
    flat: Flat = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def nest(flat: Mapping[str, Value]) -> dict[str, Any]:
    """Turn flat dotted keys into nested tables; the inverse of :func:`flatten`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        table = nested
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    return nested


def overlay(*layers: Mapping[str, Value]) -> Flat:
    """Return the settings of several layers, of which later ones win; arguments are merged name by name.

    Arguments belong to the component that is named where they are written: those of another component than the last
    one named are left out. Empty arguments clear what earlier layers said.

    >>> overlay({"partition.args": "alpha = 0.5, min_size = 20"}, {"partition.args": "alpha = 0.1"})["partition.args"]
    'alpha = 0.1, min_size = 20'
    >>> overlay({"partition.args": "alpha = 0.5, min_size = 20"}, {"partition.name": "iid"})["partition.args"]
    ''
    """
    flat: Flat = {key: value for layer in layers for key, value in layer.items()}
    return flat | {key: _layered_args(key, layers) for key in OWNERS if key in flat}


def defaults_of(flat: Mapping[str, Value]) -> Flat:
    """Return the defaults, without the arguments of default components in whose place ``flat`` chooses others."""
    chosen = {owner: flat[owner] for owner in OWNERS.values() if owner in flat}
    return DEFAULTS | {key: value for key, value in overlay(DEFAULTS, chosen).items() if key in OWNERS}


def _layered_args(key: str, layers: Sequence[Mapping[str, Value]]) -> Value:
    owner, found = OWNERS[key], dict[str, Value]()  # by the name of the component
    name = str(DEFAULTS[owner])
    for layer in layers:
        name = str(layer.get(owner, name))
        if key in layer:
            found[name] = _merged(found.get(name, ""), layer[key])
    return found.get(name, "")


def _merged(base: Value, changes: Value) -> Value:
    """Merge two texts of arguments; what is none is returned as it is, for the check to say what is wrong with it."""
    wrong = [text for text in (base, changes) if not _are_args(text)]
    return wrong[0] if wrong else merge_args(str(base), str(changes))


def _are_args(value: Value) -> bool:
    try:
        return isinstance(value, str) and isinstance(parse_args(value), dict)
    except PluginError:
        return False


def parse(flat: Mapping[str, Value]) -> Settings:
    """Check keys, types and ranges, and fill in the defaults.

    Raises
    ------
    ConfigError
        With every error found.
    """
    settings, errors = read(flat)
    if errors:
        raise ConfigError(errors)
    return settings


def read(flat: Mapping[str, Value]) -> tuple[Settings, list[Issue]]:
    """Like :func:`parse`, but return the errors, with the default wherever a value is wrong.

    A ``~`` at the start of a path is the home folder.
    """
    unknown = [name for name in flat if name not in FIELDS]
    errors = [Issue(ERROR, name, f"unknown key {name!r}{_known_keys(name)}") for name in unknown]
    values = defaults_of(flat)
    for name, item in FIELDS.items():
        given = flat.get(name, values[name])
        if problem := value_problem(given, item):
            errors.append(Issue(ERROR, name, f"{name} = {shown(given)}: {problem}"))
        else:
            values[name] = _read_value(name, given)
    return _assemble(Settings, nest(values)), errors


def _known_keys(name: str) -> str:
    """Return the closest key, or the keys of the same section, or where all keys are."""
    section = name.rpartition(".")[0] + "."
    same = [key for key in FIELDS if key.startswith(section)]
    hint = did_you_mean(name, FIELDS)
    if "did you mean" in hint:
        return hint
    return f"; keys of this section: {', '.join(same)}" if same else "; all keys are in pyproject.toml"


def _read_value(name: str, given: Value) -> Value:
    """Return a value that fits as it is used: a number as float where the setting is one, a path without ``~``."""
    if name in PATHS:
        return user_path(str(given))
    return FIELDS[name].type(given) if FIELDS[name].type in (float, str) else given  # type: ignore[operator]


def _assemble(section: Any, table: Mapping[str, Any]) -> Any:
    values = {}
    for item in fields(section):
        value = table[item.name.replace("_", "-")]
        values[item.name] = _assemble(item.type, value) if is_dataclass(item.type) else value
    return section(**values)


def to_flat(settings: Settings) -> Flat:
    """Return every key with its value, in the order of declaration."""

    def value(name: str) -> Value:
        target: Any = settings
        for part in name.split("."):
            target = getattr(target, part.replace("-", "_"))
        return target  # type: ignore[no-any-return]

    return {name: value(name) for name in FIELDS}


def variants(flat: Mapping[str, Value]) -> dict[str, Flat]:
    """Return the overrides of each variant by name; one unnamed variant without overrides when none is declared.

    Raises
    ------
    ConfigError
        If ``variants`` is not a list of TOML tables, or a variant overrides what must be the same for all variants.
    """
    text = str(flat.get("variants", ""))
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits, and of too deep brackets
        text = f'variants: expected lines such as  fedavg = {{ loss.name = "ce" }}, but {error}'
        raise ConfigError([Issue(ERROR, "variants", text)]) from error
    if not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError([Issue(ERROR, "variants", "variants: every line must be  name = { key = value, ... }")])
    shared = ("variants", "run.output-dir", "run.resume", "federation.num-clients")
    overrides = {name: flatten(table) for name, table in tables.items()}
    odd = [name for name in overrides if not re.fullmatch(NAME, name)]
    if odd:
        texts = [f"variant {name!r:.110}: a name is up to 100 letters, digits, '.', '_' and '-'" for name in odd]
        raise ConfigError([Issue(ERROR, "variants", text) for text in texts])
    errors = [
        Issue(ERROR, key, f"variant {name!r}: {key} must be the same for all variants")
        for name in overrides
        for key in shared
        if key in overrides[name]
    ]
    if errors:
        raise ConfigError(errors)
    return overrides or {"": {}}


def variant_config(flat: Mapping[str, Value], changes: Mapping[str, Value]) -> Flat:
    """Return the configuration of one variant: its changes over the shared settings."""
    return overlay(flat, {"variants": "", **changes})


def each_once(found: Mapping[str, Sequence[Issue]]) -> list[Issue]:
    """Return the issues of all variants, by name, each once; what not all of them have names those that have it."""
    having: dict[Issue, list[str]] = {}
    for variant, issues in found.items():
        for issue in issues:
            having.setdefault(issue, []).append(variant)
    return [
        replace(issue, variants="" if len(names) == len(found) else ", ".join(names)) for issue, names in having.items()
    ]


def digest(flat: Mapping[str, Value], mode: Mode) -> str:
    """Return a digest of a configuration and of where its clients are; equal values have an equal one."""
    content = json.dumps([to_flat(read(flat)[0]), mode.value], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def is_checked(flat: Mapping[str, Value], mode: Mode) -> bool:
    """Tell whether the command that submitted this configuration has checked it in full: only then did it submit it."""
    return os.environ.get(CHECKED) == digest(flat, mode)


def without_effect(settings: Settings) -> list[Issue]:
    """Return a warning for each key that was changed although the other settings make it meaningless."""
    idle = {
        "train.momentum": settings.train.optimizer != "sgd" and "only SGD has momentum",
        "train.step-rounds": settings.train.schedule != "step" and "only the step schedule has steps",
        "train.step-factor": settings.train.schedule != "step" and "only the step schedule has steps",
        "train.schedule-rounds": settings.train.schedule != "cosine" and "only the cosine schedule has an end",
        "model.init-ignore": not settings.model.init and "there is no model.init",
        "noise.args": settings.noise.name == "none" and "there is no noise",
        "noise.rates": settings.noise.name == "none" and "there is no noise",
        "noise.rates-args": settings.noise.name == "none" and "there is no noise",
        "attack.args": settings.attack.name == "none" and "there is no attack",
        "attack.share": settings.attack.name == "none" and "there is no attack",
        "attack.start-round": settings.attack.name == "none" and "there is no attack",
    }
    for name in ("format", "embeddings"):
        idle[f"audit.{name}"] = not settings.audit.enabled and "there is no audit"
    idle |= _idle_privacy(settings.privacy)
    return no_effect(settings, idle)


def no_effect(settings: Settings, why: Mapping[str, Literal[False] | str]) -> list[Issue]:
    """Return a warning for each key that was changed and has no effect, from why it has none, or False."""
    flat = to_flat(settings)
    defaults = defaults_of(flat)
    changed = {key: reason for key, reason in why.items() if reason and flat[key] != defaults[key]}
    return [Issue(WARNING, key, f"{key} has no effect: {reason}") for key, reason in changed.items()]


def _idle_privacy(settings: PrivacySettings) -> dict[str, Literal[False] | str]:
    """Return for each key of privacy why it is without effect, or False."""
    mode = settings.mode
    none, local, adaptive = mode == "none", mode == "local", "adaptive" in mode
    why = "there is no privacy" if none else f"privacy.mode is {mode}"
    return {
        "privacy.noise-multiplier": (none or local) and why,
        "privacy.clipping-norm": none and why,
        "privacy.quantile": not adaptive and why,
        "privacy.clipping-rate": not adaptive and why,
        "privacy.count-stddev": not adaptive and why,
        "privacy.epsilon": not local and why,
        "privacy.delta": none and why,
    }
