"""The report of a run as one HTML file that needs nothing else: no script, no font, no network."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server_app.report.charts import (
    Chart,
    accuracy_chart,
    group_chart,
    label_chart,
    loss_chart,
    standing_chart,
    trust_chart,
)
from server_app.report.labels import audit_section, group_losses, role_section, standings
from server_app.report.reading import RunRecord, read_run
from server_app.report.sections import View, client_section, facts, key_figures, round_section, settings, unbroken
from server_app.report.summaries import ClientSummary, equal_weight, summarize_clients
from server_app.report.text import headline, single_line
from tasks.files import replace_file

REPORT = "report.html"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,  # for every file: jinja2 chooses by endings, and these end in .md for the sake of Flower's bundle
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run directory and return its path; a crash leaves the old report or the new one.

    Raises
    ------
    ReportError
        If the directory cannot be read.
    """
    record = read_run(run_dir)
    path = record.path / REPORT
    replace_file(path, render(record).encode(errors="replace"))
    return path


def render(record: RunRecord) -> str:
    """Return the report of a run as an HTML page."""
    clients = summarize_clients(record)
    return render_page(
        "report",
        record=record,
        headline=unbroken(headline(record)),
        whole_reason=record.reason if single_line(record.reason) != record.reason else "",
        figures=key_figures(record),
        settings=settings(record.config),
        facts=facts(record),
        **_charts(record, clients),
        **client_section(record, clients),
        **role_section(record),
        **audit_section(record),
        **round_section(record),
    )


def render_page(template: str, **values: Any) -> str:
    """Return the page that the template ``templates/<template>.html.md`` makes of these values."""
    return TEMPLATES.get_template(f"{template}.html.md").render(values)


def _charts(record: RunRecord, clients: list[ClientSummary]) -> View:
    """Return the charts that there are values for; without matplotlib, what to install."""
    try:
        return {
            "progress": _drawn(accuracy_chart(record), loss_chart(record)),
            "trust": trust_chart(clients, equal_weight(record)),
            "role_charts": _drawn(standing_chart(standings(record)), group_chart(group_losses(record))),
            "audit_charts": _drawn(label_chart(record.audit)),
            "no_charts": "",
        }
    except ImportError as error:
        missing = f"Install winnow[report] for charts ({error})."
        return {"progress": [], "trust": None, "role_charts": [], "audit_charts": [], "no_charts": missing}


def _drawn(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart]
