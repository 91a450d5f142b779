"""Values of settings: whether one may stand in a setting, by what its declaration says, and how a message shows it."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from tasks.arguments import did_you_mean
from tasks.files import user_path
from tasks.settings import NAME

Value = bool | int | float | str
INT64_MAX = 2**63 - 1
"""The largest whole number of a setting: TOML, Flower's run configuration and NumPy hold 64 bits."""
LONGEST_SHOWN = 200
"""Characters of a wrong value that a message shows."""


def value_problem(value: Value, item: Field[Any]) -> str:
    """Return why a value cannot be that of a setting, or an empty text.

    ``item`` is the setting's field of :mod:`tasks.settings`; its metadata hold the limits.
    """
    if "or_number" in item.metadata:
        return _number_problem(value, item)
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes"}
    if not (type(value) is item.type or (item.type is float and type(value) is int)):
        return f"must be {kinds[item.type]}"  # type: ignore[index]
    limits = item.metadata
    if limits.get("choices") and value not in limits["choices"]:
        return "unknown" + did_you_mean(str(value), limits["choices"])
    if isinstance(value, str):
        return path_problem(value) if limits.get("path") else _name_problem(value) if limits.get("is_name") else ""
    if item.type is float and not abs(value) <= sys.float_info.max:  # false for NaN too; an int may be beyond any float
        return "must be finite"
    return _range_problem(value, {"high": INT64_MAX, **limits} if item.type is int else limits)


def _range_problem(value: float, limits: Mapping[str, Any]) -> str:
    low, above, high, below = (limits.get(name) for name in ("low", "above", "high", "below"))
    if (
        (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    ):
        return ""
    named = (("at least", low), ("above", above), ("at most", high), ("below", below))
    return f"must be {' and '.join(f'{text} {bound}' for text, bound in named if bound is not None)}"


def _name_problem(value: str) -> str:
    """Return why a text cannot be part of the name of a run directory."""
    return "" if not value or re.fullmatch(NAME, value) else "must be up to 100 letters, digits, '.', '_' and '-'"


def _number_problem(value: Value, item: Field[Any]) -> str:
    """Return why a value is neither one of the choices nor a whole number, as text or not, that is large enough."""
    choices, low = item.metadata["choices"], item.metadata["or_number"]
    is_number = type(value) is int or (isinstance(value, str) and value.isdecimal() and len(value) < 10)
    if value in choices or (is_number and low <= int(value) <= INT64_MAX):
        return ""
    return f"must be {', '.join(choices)} or a whole number from {low} on"


def shown(value: Value) -> str:
    """Return a value for a message; a very long one shortened, or by its size where Python does not even print it."""
    if isinstance(value, int) and abs(value) >= 10**100:
        return f"a number of about {int(math.log10(2) * value.bit_length())} digits"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def value_text(value: Value) -> str:
    """Return a value as it is named in a search: as TOML writes it, a text without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def same_value(found: str, wanted: str) -> bool:
    """Tell whether two texts are the same, or the same number."""
    try:
        return found == wanted or float(found) == float(wanted)
    except ValueError:
        return False


def path_problem(value: str) -> str:
    """Return why a text is no path, or an empty text."""
    try:
        user_path(value)
    except ValueError as error:
        return str(error)
    return ""
