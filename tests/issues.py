"""What a configuration is warned of, as users read it."""

from collections.abc import Mapping
from typing import Any

from server_app.validation.config import validate
from tasks.protocol import Mode


def warning_lines(flat: Mapping[str, Any], mode: Mode = Mode.SIMULATION) -> list[str]:
    """The lines of all warnings of a configuration without errors."""
    return [issue.line for issue in validate(flat, mode).warnings]
