"""Trackers: TensorBoard event files, MLflow (a local store or a server), Weights & Biases.

Their packages are extras, and imported when a run starts.
"""

import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from server_app.callbacks.base import CALLBACKS
from server_app.callbacks.tracking import COMPLETED, MODEL, TrackedRun, Tracker

LONGEST_PARAMETER = 500
"""Characters of a parameter that older MLflow servers take."""


def _needed(package: str, extra: str) -> None:
    """Raise ``ValueError`` if a package is not installed."""
    if find_spec(package) is None:
        raise ValueError(f'the package {package} is not installed; pip install -e ".[{extra}]"')


@CALLBACKS.register("tensorboard")
class TensorBoard(Tracker):
    """Writes TensorBoard event files into the run directory's ``tensorboard`` folder (extra ``tracking``).

    Raises
    ------
    ValueError
        If the package is not installed.
    """

    def __init__(self) -> None:
        _needed("tensorboard", "tracking")
        super().__init__(artefacts=False)  # they lie beside it

    def open(self, run: TrackedRun) -> None:
        """Open the event file; of rounds that are done again the earlier values are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        done = int(run.directory.status().get("rounds_done", 0))
        folder = str(run.directory.path / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=done + 1 if run.resumed else None)

    def log_measures(self, server_round: int, measures: Mapping[str, float]) -> None:
        """Write every number of the round."""
        for name, value in measures.items():
            self._writer.add_scalar(name, value, server_round)
        self._writer.flush()

    def close(self, status: str, files: Sequence[Path]) -> None:
        """Close the event file."""
        self._writer.close()


@CALLBACKS.register("mlflow")
class MLflow(Tracker):
    """Records runs with MLflow, in a local store or at a server (extra ``mlflow``).

    Parameters
    ----------
    uri
        Address of the server, such as ``https://mlflow.example.org``, or a folder; empty = ``$MLFLOW_TRACKING_URI``,
        else the folder ``mlruns`` beside the run directory.
    experiment
        Its name; empty = that of the sweep, else ``winnow``.
    artefacts
        Whether report, model card and weights are handed over too.

    Raises
    ------
    ValueError
        If the package is not installed.
    """

    def __init__(self, uri: str = "", experiment: str = "", artefacts: bool = True) -> None:
        _needed("mlflow", "mlflow")
        super().__init__(artefacts)
        self._uri, self._experiment = uri, experiment

    def open(self, run: TrackedRun) -> None:
        """Create the run, or go on with the one of before; log the settings."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # of seven, with longer waits each time
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI", "") or str(run.directory.path.parent / "mlruns")
        if "://" not in uri:  # MLflow calls its store of files outdated, and takes it only if told so
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = Path(uri).absolute().as_uri()
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(uri)
        known = run.directory.status().get("mlflow_run", "")
        if run.resumed and known:
            self._run = str(known)
            self._client.update_run(self._run, "RUNNING")
            return
        tags = {"group": run.group, "tags": ",".join(run.tags), "mlflow.note.content": run.note, "winnow_key": run.key}
        experiment = self._experiment_id(self._experiment or run.group or "winnow")
        created = self._client.create_run(experiment, run_name=run.name, tags={k: v for k, v in tags.items() if v})
        self._run = created.info.run_id
        run.directory.update_status(mlflow_run=self._run)
        values = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in run.parameters.items() if value != ""]
        for start in range(0, len(values), 100):  # as many as a server takes at once
            self._client.log_batch(self._run, params=values[start : start + 100])

    def _experiment_id(self, name: str) -> str:
        """Return the experiment of this name; another run of a sweep may create it at the same moment."""
        from mlflow.exceptions import MlflowException

        for _ in range(2):
            if (found := self._client.get_experiment_by_name(name)) is not None:
                return str(found.experiment_id)
            try:
                return str(self._client.create_experiment(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise ValueError(f"the experiment {name!r} exists, but cannot be used: was it deleted? restore it")

    def log_measures(self, server_round: int, measures: Mapping[str, float]) -> None:
        """Log every number of the round."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(name, float(value), now, server_round) for name, value in measures.items()]
        self._client.log_batch(self._run, metrics=found)

    def close(self, status: str, files: Sequence[Path]) -> None:
        """Log the files and end the run."""
        for path in files:
            self._client.log_artifact(self._run, str(path), MODEL if path.parent.name == MODEL else None)
        self._client.set_terminated(self._run, {COMPLETED: "FINISHED", "stopped": "KILLED"}.get(status, "FAILED"))


@CALLBACKS.register("wandb")
class WeightsAndBiases(Tracker):
    """Records runs with Weights & Biases; offline in the run directory unless told otherwise (extra ``wandb``).

    Parameters
    ----------
    project, entity
        Where the run belongs; an empty entity is the user's own.
    mode
        ``offline`` writes into the run directory, to be sent by ``wandb sync``; ``online`` sends as the run goes on and
        needs ``$WANDB_API_KEY`` or an earlier ``wandb login``.
    artefacts
        Whether report, model card and weights are handed over too.

    Raises
    ------
    ValueError
        If the package is not installed.
    """

    def __init__(
        self,
        project: str = "winnow",
        entity: str = "",
        mode: Literal["offline", "online"] = "offline",
        artefacts: bool = True,
    ) -> None:
        _needed("wandb", "wandb")
        super().__init__(artefacts)
        self._project, self._entity, self._mode = project, entity, mode

    def open(self, run: TrackedRun) -> None:
        """Begin the run, or go on with it."""
        import wandb

        quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False)
        self._name = run.name
        self._run = wandb.init(
            project=self._project,
            entity=self._entity or None,
            mode=self._mode,
            dir=str(run.directory.path),
            id=run.key,
            name=run.name,
            group=run.group or None,
            tags=list(run.tags),
            notes=run.note or None,
            config=dict(run.parameters),
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=quiet,
        )

    def log_measures(self, server_round: int, measures: Mapping[str, float]) -> None:
        """Log every number of the round."""
        self._run.log(dict(measures), step=server_round)

    def close(self, status: str, files: Sequence[Path]) -> None:
        """Log the files as one artefact and end the run."""
        import wandb

        if files:
            kept = wandb.Artifact(f"run-{self._name}", type="run")
            for path in files:
                kept.add_file(str(path), f"{MODEL}/{path.name}" if path.parent.name == MODEL else path.name)
            self._run.log_artifact(kept)
        self._run.finish(exit_code=0 if status == COMPLETED else 1)
