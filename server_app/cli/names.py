"""Names of built-in parts in a configuration, looked up before anything that takes seconds to import.

A wrong name is said in the words of :meth:`tasks.plugins.Registry.find`; the choices come from the source, see
:mod:`server_app.cli.catalog`.
"""

from collections.abc import Collection, Mapping
from functools import cache

from server_app.cli import catalog
from tasks.arguments import did_you_mean
from tasks.config import DEFAULTS, OWNERS, each_once, variant_config, variants
from tasks.issues import ERROR, Issue
from tasks.plugins import looks_like_path
from tasks.setting_values import Value

KINDS = {
    "task.name": "task",
    "task.encoder": "encoder",
    "model.name": "model",
    "partition.name": "partition",
    "noise.name": "noise",
    "noise.rates": "noise-rates",
    "loss.name": "loss",
    "loss.preset": "preset",
    "method.name": "method",
    "strategy.name": "strategy",
    "strategy.aggregator": "aggregator",
    "strategy.server-optimizer": "server-optimizer",
    "attack.name": "attack",
}
"""By setting the kind of what it names, as ``winnow list`` calls it."""
WORDS = {
    "method": "client method",
    "noise-rates": "noise-rate distribution",
    "preset": "loss preset",
    "server-optimizer": "server optimizer",
}
"""What messages call a kind, where that is not the same."""
NO_PART = ("", "none", "auto")


def unknown_names(flat: Mapping[str, Value], sound: Mapping[str, Value] | None = None) -> list[Issue]:
    """Return an error for each name that is neither a built-in part nor an import path, with its variants.

    The names in ``sound``, a configuration known to be right, are not looked up.
    """
    trusted = {**DEFAULTS, "variants": ""} if sound is None else sound
    known = {key: _chosen(trusted, key) for key in KINDS}
    configs = {name: variant_config(flat, changes) for name, changes in variants(flat).items()}
    return each_once({name: _unknown(config, known) for name, config in configs.items()})


def _chosen(flat: Mapping[str, Value], key: str) -> set[Value]:
    return {variant_config(flat, changes).get(key, DEFAULTS[key]) for changes in variants(flat).values()}


def _unknown(flat: Mapping[str, Value], known: Mapping[str, Collection[Value]]) -> list[Issue]:
    found = []
    for key, kind in KINDS.items():
        name = flat.get(key, DEFAULTS[key])
        if not isinstance(name, str) or name in NO_PART or name in known[key] or looks_like_path(name):
            continue
        if name not in names(kind):
            part = key if key == "noise.rates" else key.partition(".")[0]
            text = f"{part}: unknown {WORDS.get(kind, kind)} {name!r}{did_you_mean(name, names(kind))}"
            found.append(Issue(ERROR, key, text))
    return found


names = cache(catalog.names)


def arguments_of(owners: Collection[str]) -> set[str]:
    """Return the settings that mean nothing without the parts that these settings name."""
    found = {key for key, owner in OWNERS.items() if owner in owners}
    return found | ({"loss.preset"} if "loss.name" in owners else set())
