"""Files of a run directory, read with care: a broken one is an error that names it, the line and what to do."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from server_app.storage.run_directory import CONFIG
from tasks.config import flatten


class ReportError(ValueError):
    """A run directory that cannot be read; the message names the file and what is wrong with it."""


def read_lines(path: Path, *required: str) -> list[dict[str, Any]]:
    """Read a .jsonl file whose objects all have the ``required`` whole numbers, but not a last line that was cut off.

    Raises
    ------
    ReportError
        If any other line is not such an object.
    """
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    lines = text.rstrip("\n").split("\n") if text else []
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            message = f"{path}, line {number}: not JSON ({error}); delete the line or restore the file"
            raise ReportError(message) from error
        for key in required:
            if not isinstance(content, dict) or as_count(content.get(key)) is None:
                raise ReportError(f"{path}, line {number}: expected an object with the whole number {key!r}")
        found.append(content)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises
    ------
    ReportError
        If it holds anything else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes().decode(errors="replace"))
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings that a run recorded in its directory, by key; nothing where it has none.

    Raises
    ------
    ReportError
        If the file is not TOML.
    """
    path = folder / CONFIG
    try:
        tables = tomllib.loads(path.read_bytes().decode()) if path.is_file() else {}
    except ValueError as error:  # not TOML, or not UTF-8
        raise ReportError(f"{path} is not TOML: {error}") from error
    return flatten(tables)


def as_number(value: Any) -> float | None:
    """Return a finite number as float; NaN, infinities and everything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond the range of float
        return None


def as_count(value: Any) -> int | None:
    """Return a whole number from 0 on; everything else as None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def as_text(value: Any) -> str:
    """Return a text, empty for None."""
    return "" if value is None else str(value)
