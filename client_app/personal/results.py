"""Results of a site after the last round: measured on what it held out, beside training alone and a personal model.

All of it is made at the site and stays in its own folder, from the model that it is sent: the one that the run keeps as
its best (``run.monitor``) if it has one, else the last.
"""

import time
from pathlib import Path
from typing import Any

from safetensors.numpy import save
from torch import nn

from client_app.label_audit_files import list_path, warnings_of, write_audit
from client_app.label_audit_report import REPORT
from client_app.label_quality import Audit, audit_client
from client_app.node import NodeError
from client_app.personal.alone import settings_alone, train_alone
from client_app.personal.comparison import Comparison, Scores, compare, right_shares
from client_app.personal.report import SiteReport, clock_warnings, comparison_warnings, model_warnings
from client_app.personal.tuning import tune
from client_app.session import Session
from tasks.base import ClientData, DataError, Task, predict
from tasks.client_data import load_task
from tasks.files import private_folder, replace_file
from tasks.protocol import SAME_DATA
from tasks.weights import model_arrays

ALONE, PERSONAL = "alone, as long", "personal model"
MODEL, PERSONAL_MODEL = "final-model.safetensors", "personal-model.safetensors"
ALONE_FOLDER = "alone"
TWIN = (
    "Another node of this run has exactly the same data as this one: is a data-path given to two nodes, or this site "
    "connected twice? Each counts as a site of its own."
)
NOT_COMPARED = "Nothing was compared or tuned: this site has too few examples to hold some out."


class SiteResults:
    """Makes a site's report step by step.

    Parameters
    ----------
    session
        The message with the final model.
    folder
        The site's own folder.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder = session, folder
        self.task: Task = load_task(session.settings.task)
        self.data: ClientData = session.dataset.data
        self.whole: ClientData = session.dataset.whole.data
        held_out = session.dataset.held_out
        self.held_out = held_out if held_out is not None and len(held_out) else None
        self._final: Scores | None = None
        self.model_round = session.model_round

    def make(self, full: bool) -> Path:
        """Write the report and return where it is; if ``full``, with what ``personal.*`` asks for.

        Raises
        ------
        NodeError
            If the run started from a file of weights that this site does not have.
        """
        report = self._plain()
        personal = self.session.settings.personal
        if full and self.held_out is None:
            report.warnings.append(NOT_COMPARED)
        elif full:
            report.models |= {ALONE: self._alone(report)} if personal.compare else {}
            report.models |= {PERSONAL: self._tuned(report)} if personal.tune != "none" else {}
        report.warnings += comparison_warnings(report.models, ALONE)
        return report.write(self.folder)

    def _plain(self) -> SiteReport:
        """Return the report on the run's model alone."""
        header, measured = self.session.header, self.data if self.held_out is None else self.held_out
        scores = self._scores(self.session.model(), measured)
        self._final = scores
        facts = {
            "run": header.run_name,
            "client": header.client,
            "round": header.server_round,
            "model_round": self.model_round,
            "method": self.session.settings.method.name,
        }
        count = 0 if self.held_out is None else len(self.held_out)
        report = SiteReport(facts, count, float(scores.mean()))
        if self.session.message.content.config_records["config"].get(SAME_DATA):
            report.warnings.append(TWIN)
        report.warnings += clock_warnings(self.session.message.metadata.created_at, time.time())
        if not self.task.labels_pixels:
            report.warnings += self._judged(self.session.model())
        path = list_path(self.folder, self.session.settings.audit.format)
        if path.is_file():
            report.warnings += warnings_of(self.folder)
            report.files[path.name] = "your labels, the most suspicious first"
        if (self.folder / REPORT).is_file():
            report.files[REPORT] = "how many of them are wrong, and how to read the list"
        return report

    def _judged(self, model: nn.Module) -> list[str]:
        """Return what stands out where the model meets the site's labels, held out or not."""
        batch_size, device = self.session.settings.evaluate.batch_size, self.session.device
        guesses = predict(model, self.task, self.whole.features, batch_size, device).argmax(1).numpy()
        return model_warnings(guesses, self.whole.labels, self.task.class_names)

    def _scores(self, model: nn.Module, data: ClientData) -> Scores:
        session = self.session
        return right_shares(model, self.task, data, session.settings.evaluate.batch_size, session.device)

    def _compared(self, model: nn.Module) -> Comparison:
        assert self.held_out is not None
        assert self._final is not None
        return compare(self._final, self._scores(model, self.held_out))

    def _alone(self, report: SiteReport) -> Comparison:
        session, header = self.session, self.session.header
        try:
            model, state = train_alone(
                self.data, session.settings, header.server_round, header.num_rounds, session.device
            )
        except DataError as error:
            raise NodeError("personal.compare: the weights that the run started from are not at this site") from error
        own = settings_alone(session.settings)
        if own.method != session.settings.method:
            report.doubts.append(f"Alone by {own.method.name}: method {session.settings.method.name} needs the others.")
        if not self.task.labels_pixels:
            audit = audit_client(model, self.whole, own, state or None, session.device, self.data)
            report.doubts += self._audits(audit)
            facts: dict[str, Any] = {
                **report.facts,
                "method": f"{own.method.name}, alone",
                "model_round": header.server_round,
            }
            path = write_audit(
                self.folder / ALONE_FOLDER, audit, self.task.class_names, session.settings.audit.format, facts
            )
            report.files[f"{ALONE_FOLDER}/{path.name}"] = "the same list by the model that this site would have alone"
        return self._compared(model)

    def _audits(self, alone: Audit) -> list[str]:
        """Say how many labels each of the two models doubts."""
        session = self.session
        kept = session.store().load(session.header.server_round + 1)
        final = audit_client(session.model(), self.whole, session.settings, kept, session.device, self.data)
        first, second = (set(one.names[: one.doubted]) for one in (final, alone))
        return [
            f"Of {len(self.whole)} labels: {len(first)} by the model of all sites, {len(second)} by the one alone, "
            f"{len(first & second)} by both.",
            "A model does not doubt what it has learned by heart, and one that is alone with its labels does so more.",
        ]

    def _tuned(self, report: SiteReport) -> Comparison:
        session, personal = self.session, self.session.settings.personal
        model = session.model()
        names = list(model_arrays(model))
        self._save(MODEL, model, names)
        tune(model, self.data, session.settings, session.header.server_round, session.device)
        found = self._compared(model)
        self._save(PERSONAL_MODEL, model, names)
        report.files[MODEL] = f"the model of all sites, as after round {self.model_round}"
        report.files[PERSONAL_MODEL] = f"the same, with {_in_words(personal.tune)} tuned on your examples"
        return found

    def _save(self, name: str, model: nn.Module, names: list[str]) -> None:
        private_folder(self.folder)
        arrays = {key: array.copy(order="C") for key, array in model_arrays(model, names).items()}
        header = self.session.header
        content = save(arrays, {"run": header.run_name, "round": str(self.model_round)})
        replace_file(self.folder / name, content, private=True)


def _in_words(part: str) -> str:
    return {"norm": "its normalisation layers", "head": "its last layer", "all": "all of it"}[part]
