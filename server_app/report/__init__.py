"""Report of a run: read a run directory, describe it in words, as a web page and next to other runs."""

from server_app.report.page import write_page, write_report
from server_app.report.reading import ReportError, RunRecord, read_run
from server_app.report.results import results_table
from server_app.report.table import comparison_table
from server_app.report.text import headline

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
