"""A survey in words."""

import numpy as np
import numpy.typing as npt

from server_app.preview.survey import Survey
from server_app.report.wording import counted, number, percent


def title(survey: Survey) -> str:
    """Say what is divided among whom.

    For example "digits, 20 clients, partition dirichlet, noise symmetric".
    """
    settings = survey.settings
    clients = counted(settings.federation.num_clients, "client")
    return f"{settings.task.name}, {clients}, partition {settings.partition.name}, noise {settings.noise.name}"


def choices(survey: Survey) -> dict[str, str]:
    """Return the choices behind the data, with their arguments."""
    settings = survey.settings
    law = f", law {_choice(settings.noise.law, settings.noise.law_args)}" if survey.wanted is not None else ""
    return {
        "task": _choice(settings.task.name, settings.task.args),
        "partition": _choice(settings.partition.name, settings.partition.args),
        "noise": _choice(settings.noise.name, settings.noise.args) + law,
        "seed": str(settings.seed),
    }


def _choice(name: str, args: str) -> str:
    return f"{name} ({args})" if args else name


def findings(survey: Survey) -> dict[str, str]:
    """Return the most important numbers: sizes, classes and wrong labels."""
    held = (survey.counts > 0).sum(axis=1)
    total, clients = counted(survey.examples.sum(), "example"), counted(len(survey.examples), "client")
    median = number(float(np.median(survey.examples)))
    return {
        "examples": f"{total} of {clients}; a client has {span(survey.examples)}, median {median}",
        "classes": f"a client has {span(held)} of {len(survey.class_names)}",
        "wrong labels": wrong_labels(survey),
    }


def wrong_labels(survey: Survey) -> str:
    """Say how many labels are wrong, overall and at the clients, and what the law asked for."""
    if not survey.realised.any() and (survey.wanted is None or not survey.wanted.any()):
        return "none"
    wanted = "" if survey.wanted is None else f" (the law asks for {_rates(survey.wanted)})"
    return f"{percent(survey.overall)} of all; a client has {_rates(survey.realised)}{wanted}"


def summary(survey: Survey) -> str:
    """Return the choices and the findings as aligned lines."""
    lines = {**choices(survey), **findings(survey)}
    return "\n".join(f"{name + ':':<14}{text}" for name, text in lines.items())


def span(counts: npt.NDArray[np.int64]) -> str:
    """Write the smallest and the largest of some counts."""
    least, most = int(counts.min()), int(counts.max())
    return str(least) if least == most else f"{least} to {most}"


def _rates(rates: npt.NDArray[np.float64]) -> str:
    least, most = percent(float(rates.min())), percent(float(rates.max()))
    return least if least == most else f"{least} to {most}"
