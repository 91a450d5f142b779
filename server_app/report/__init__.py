"""The report of a run: read a run directory, describe it in words, as a web page and next to other runs."""

from server_app.report.headline import headline
from server_app.report.page import write_report
from server_app.report.parsing import ReportError
from server_app.report.record import RunRecord, read_run
from server_app.report.table import comparison_table

__all__ = ["ReportError", "RunRecord", "comparison_table", "headline", "read_run", "write_report"]
