"""Report of a run: read a run directory, describe it in words, as a web page and next to other runs.

The names are imported when they are asked for, because who only reads run directories needs no page and no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server_app.report.files import ReportError
    from server_app.report.outcome import headline
    from server_app.report.page import write_page, write_report
    from server_app.report.reading import RunRecord, read_run
    from server_app.report.results import results_table
    from server_app.report.table import comparison_table
else:
    _MODULES = {
        "files": ("ReportError",),
        "outcome": ("headline",),
        "page": ("write_page", "write_report"),
        "reading": ("RunRecord", "read_run"),
        "results": ("results_table",),
        "table": ("comparison_table",),
    }

    def __getattr__(name: str) -> Any:
        """Import a name from its module (PEP 562)."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ReportError",
    "RunRecord",
    "comparison_table",
    "headline",
    "read_run",
    "results_table",
    "write_page",
    "write_report",
]
