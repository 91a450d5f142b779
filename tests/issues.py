"""What a configuration is warned of, as users read it."""

from collections.abc import Mapping
from typing import Any

from server_app.validation.config import validate


def warning_lines(flat: Mapping[str, Any], simulated: bool = True) -> list[str]:
    """The lines of all warnings of a configuration without errors."""
    return [issue.line for issue in validate(flat, simulated).warnings]
