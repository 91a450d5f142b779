"""Checks of the settings ``personal.*`` before any client starts."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from client_app.methods import ClientMethod
from client_app.personal.alone import PLAIN, needs_others
from client_app.personal.tuning import tuned_parameters
from tasks.base import DataError, Task
from tasks.config import no_effect
from tasks.features import FeatureError
from tasks.issues import ERROR, WARNING, Issue, RunContext
from tasks.protocol import Mode
from tasks.settings import Settings
from tasks.validation_split import SITES


def personal_issues(context: RunContext) -> list[Issue]:
    """Return why a site could not compare or tune in such a run, and what is set in vain."""
    settings, found = context.settings, list[Issue]()
    asked = [key for key, wanted in (("compare", settings.personal.compare), ("tune", _tunes(settings))) if wanted]
    for key in asked if context.validation != SITES else []:
        text = f"personal.{key}: the sites hold no examples out, so nothing could say which model is better"
        remedy = "set run.monitor = 'sites', or evaluate.validation-at and federation.fraction-evaluate"
        found.append(Issue(ERROR, f"personal.{key}", text, remedy))
    method = context.method
    if settings.personal.compare and isinstance(method, ClientMethod) and needs_others(method):
        text = f"personal.compare: alone a site trains by {PLAIN}, as method {settings.method.name} needs the others"
        found.append(Issue(WARNING, "personal.compare", text))
    if settings.personal.compare and settings.model.init and context.mode is Mode.DEPLOYMENT:
        text = f"personal.compare: each site needs the file {settings.model.init!r} of model.init in its weights-path"
        found.append(Issue(WARNING, "personal.compare", text))
    idle: Mapping[str, Literal[False] | str] = {
        f"personal.{key}": not _tunes(settings) and "nothing is tuned (personal.tune)"
        for key in ("epochs", "learning-rate")
    }
    return found + no_effect(settings, idle)


def tuning_issues(settings: Settings, model: nn.Module, task: Task) -> list[Issue]:
    """Return that the model has no such part as is to be tuned; it is left in evaluation mode, and no data is read."""
    if not _tunes(settings):
        return []
    try:
        tuned_parameters(model, settings.personal.tune, task)
    except (DataError, FeatureError) as error:
        return [Issue(ERROR, "personal.tune", f"personal.tune = {settings.personal.tune!r}: {error}")]
    return []


def _tunes(settings: Settings) -> bool:
    return settings.personal.tune != "none"
