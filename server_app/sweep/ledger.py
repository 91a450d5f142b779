"""Ledger of a sweep: the rows of its planned runs in the database, with what earlier calls have finished."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from server_app.report.files import ReportError, read_config
from server_app.sweep.database import (
    COMPLETED,
    EARLIER,
    PENDING,
    SweepDatabase,
    SweepRun,
)
from server_app.sweep.file import SweepFileError
from server_app.sweep.keys import changed_settings, run_key
from server_app.sweep.plan import PlannedRun, alike
from tasks.base import DataError
from tasks.config import ConfigError, parse
from tasks.plugins import PluginError
from tasks.settings import OLDER_RUNS


@dataclass(frozen=True)
class Entry:
    """A planned run, and its row in the database."""

    planned: PlannedRun
    row: SweepRun

    @property
    def is_finished(self) -> bool:
        """Whether its measures are there."""
        return self.row.state == COMPLETED


@dataclass(frozen=True)
class Entries:
    """Planned runs of one purpose; ``older`` counts those that other code has finished, which may be ``kept``."""

    entries: tuple[Entry, ...]
    older: int = 0
    kept: bool = False

    def left(self) -> list[Entry]:
        """Return those that are not finished."""
        return [entry for entry in self.entries if not entry.is_finished]

    def of_older_code(self) -> str:
        """Say how many runs other code has finished, and what becomes of them."""
        then = "they are kept" if self.kept else "they are played again (--keep-older-code keeps them)"
        return f"The code has changed since {self.older} of {len(self.entries)} runs were finished; {then}."


class Ledger:
    """Finds and keeps the rows of planned runs.

    Parameters
    ----------
    path
        The sweep file, for messages.
    database
        None while nothing is to be written, and there is nothing yet.
    keep_older_code
        Whether a finished run of the same settings and data counts, whatever code has played it.
    """

    def __init__(self, path: Path, database: SweepDatabase | None, keep_older_code: bool = False) -> None:
        self._path, self._database, self._keep_older_code = path, database, keep_older_code

    def look_up(self, planned: Sequence[PlannedRun]) -> Entries:
        """Return the rows of runs, new ones where there are none; nothing is written.

        Raises
        ------
        SweepFileError
            If two runs have the same settings.
        """
        keys = [run_key(run.flat) for run in planned]
        if problems := alike(zip(planned, (key.content for key in keys), strict=True)):
            raise SweepFileError(self._path, problems)
        known = {row.key: row for row in (self._database.runs(with_series=False) if self._database else [])}
        older = self._by_content(known, {key.whole for key in keys}) if known else {}
        entries, count = [], 0
        for place, (run, key) in enumerate(zip(planned, keys, strict=True)):
            row = known.get(key.whole)
            if (row is None or row.state != COMPLETED) and key.content in older:
                count += 1
                row = older[key.content] if self._keep_older_code else row
            new = SweepRun(key.whole, place, run.point, changed_settings(parse(run.flat)), run.purpose)
            found = new if row is None else replace(row, place=place, point=run.point, purpose=run.purpose)
            entries.append(Entry(run, found))
        return Entries(tuple(entries), count, self._keep_older_code)

    def _by_content(self, known: dict[str, SweepRun], planned: set[str]) -> dict[str, SweepRun]:
        """Return finished runs that no present key fits, by the digest of their settings and data."""
        older = (row for key, row in known.items() if row.state == COMPLETED and key not in planned)
        return {content: row for row in older if (content := self._content(row))}

    def _content(self, row: SweepRun) -> str:
        """Return the digest of a run's data and of all settings that it recorded; what was a default may be none now.

        Empty where these are gone, or none any more.
        """
        assert self._database is not None
        try:
            recorded = read_config(self._database.path.parent / row.folder)
            return run_key(OLDER_RUNS | recorded).content if recorded else ""
        except (ConfigError, PluginError, DataError, ReportError, OSError):
            return ""

    def enter(self, planned: Sequence[PlannedRun], purpose: str) -> Entries:
        """Return what :meth:`look_up` does, and write it down; what else there was of this purpose is an earlier run.

        What failed or was interrupted before is to be played again.
        """
        database = self._database
        assert database is not None
        found = self.look_up(planned)
        keys = {entry.row.key for entry in found.entries}
        for row in database.runs(with_series=False):
            if row.purpose == purpose and row.key not in keys:
                database.update(row.key, purpose=EARLIER)
        database.add(entry.row for entry in found.entries)
        return replace(found, entries=tuple(map(self._begun_again, found.entries)))

    def _begun_again(self, entry: Entry) -> Entry:
        assert self._database is not None
        row = replace(entry.row, state=PENDING, attempts=0, reason="")
        if entry.is_finished or row == entry.row:
            return entry
        self._database.update(row.key, state=row.state, attempts=row.attempts, reason=row.reason)
        return replace(entry, row=row)
