"""Site report: what a site should know of its own model and data after a run, warnings first; for the site's eyes only.

Two files in the site's own folder say the same: ``site-report.txt`` for people and ``site-report.json`` for programs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from client_app.personal.comparison import Comparison
from tasks.base import Labels
from tasks.files import private_folder, replace_file

STEM = "site-report"
TEXT, FACTS = f"{STEM}.txt", f"{STEM}.json"
FEW = 5
"""Of a class with fewer examples it is chance whether the model knows one of them."""
CLOCK_SECONDS = 30.0
NOTHING = "Nothing stands out."


@dataclass
class SiteReport:
    """What is said to a site.

    Attributes
    ----------
    facts
        Run, client, round, the round of the model, and method.
    held_out
        On how many examples the models are measured on which none was trained; 0 = there are none.
    accuracy
        Share of right labels that the run's model has there, or without any on the site's training examples.
    models
        By name, each other model compared with the run's.
    doubts
        Sentences about what the audits of two models say.
    warnings
        What somebody should look at, in sentences.
    files
        By name in the site's folder, what is in it.
    """

    facts: dict[str, Any]
    held_out: int
    accuracy: float
    models: dict[str, Comparison] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the report for people."""
        facts = self.facts
        title = f"Report of site {facts['client']} about run {facts['run']}, after round {facts['round']}"
        parts = [title, "=" * len(title), "", "Look here first"]
        parts += [f"  - {warning}" for warning in self.warnings] or [f"  {NOTHING}"]
        parts += ["", *self._measured()]
        if self.doubts:
            parts += ["", "Labels to look at first", *(f"  {line}" for line in self.doubts)]
        if self.files:
            width = max(map(len, self.files))
            parts += ["", "In this folder", *(f"  {name.ljust(width)}  {what}" for name, what in self.files.items())]
        return "\n".join([*parts, "", "Nothing of this is sent to anybody.", ""])

    def _measured(self) -> list[str]:
        if not self.held_out:
            return [
                "No examples of this site were held out, so nothing says how good the model is on new ones. On those "
                f"that it has learned from it agrees with {_percent(self.accuracy)} of the labels."
            ]
        lines = [
            *self._which(),
            f"On {self.held_out} examples that this site held out; no model was trained on them, labels are as given",
            f"  {'model of all sites':<26}{_percent(self.accuracy):>8} right",
        ]
        lines += ["  Wrong labels among them count against every model."] if self.models else []
        for name, found in self.models.items():
            lines.append(f"  {name:<26}{_percent(found.second):>8} right   {in_words(found)}")
        return lines

    def _which(self) -> list[str]:
        """Say which model of the run this is about, where that is not the last one."""
        chosen, last = self.facts.get("model_round"), self.facts["round"]
        if chosen in (None, last):
            return []
        return [
            f"The model of all sites is that of round {chosen} of {last}, which the run keeps as its best. Where it "
            "was chosen on the sites' held-out examples, as these are, that flatters it a little."
        ]

    def content(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            **self.facts,
            "warnings": self.warnings,
            "held_out": self.held_out,
            "accuracy": round(self.accuracy, 4),
            "models": {name: found.facts() for name, found in self.models.items()},
            "doubts": self.doubts,
            "files": self.files,
        }

    def write(self, folder: Path) -> Path:
        """Write both files, for this user alone, and return the path of the text.

        Raises
        ------
        WriteError
            If one cannot be written.
        """
        private_folder(folder)
        content = json.dumps(self.content(), indent=2, ensure_ascii=False)
        replace_file(folder / FACTS, f"{content}\n".encode(errors="backslashreplace"), private=True)
        replace_file(folder / TEXT, self.text().encode(errors="backslashreplace"), private=True)
        return folder / TEXT


def in_words(found: Comparison) -> str:
    """Say how a model compares with the one of all sites, and whether that may be chance."""
    differ = f"on {found.better} of the examples only this one is better, on {found.worse} only that of all sites"
    if not found.better + found.worse:
        return "no difference on any example"
    chance = f"p = {found.p_value:.2g}"
    if found.verdict == "not told apart":
        return f"{differ}: too few to tell them apart ({chance})"
    return f"{differ}: this one is {found.verdict} ({chance})"


def model_warnings(guesses: Labels, labels: Labels, class_names: Sequence[str]) -> list[str]:
    """Return what is wrong with a model that makes these guesses of a site's labels, (n,) each, one label per example.

    A model that is right no more often than who always says the most frequent class has learned nothing for this site.
    """
    found, right = [], guesses == labels
    counts = np.bincount(labels, minlength=len(class_names))
    usual = int(counts.argmax())
    if len(labels) and (counts > 0).sum() > 1 and right.mean() <= counts[usual] / len(labels):
        found.append(
            f"The model is right on {_percent(float(right.mean()))} of {len(labels)} labels here; always saying "
            f"{class_names[usual]!r} would be right on {_percent(counts[usual] / len(labels))}. Do not rely on its "
            "label audit: are the classes in the right order, the images scaled and coloured like those of the others?"
        )
    known = np.bincount(labels[right], minlength=len(class_names))
    for k in np.flatnonzero((counts >= FEW) & (known == 0)).tolist():
        found.append(
            f"The class {class_names[k]!r} is lost: the model recognises none of your {counts[k]} examples of it."
        )
    return found


def clock_warnings(sent: float, now: float) -> list[str]:
    """Return that this machine's clock is behind, if a message seems to come from the future (Unix seconds)."""
    behind = sent - now
    if behind < CLOCK_SECONDS:
        return []
    return [
        f"The clock of this machine is at least {behind:.0f} s behind the coordinator's: set it, or the node will be "
        "refused one day."
    ]


def comparison_warnings(models: Mapping[str, Comparison], alone: str) -> list[str]:
    """Return that joining, or tuning, has made the model worse for this site, where that is no chance."""
    found = []
    for name, one in models.items():
        if name == alone and one.verdict == "better":
            found.append("The model that this site would have alone is better for it than the one of all sites.")
        if name != alone and one.verdict == "worse":
            found.append(f"The {name} is worse on new examples than the model of all sites: do not use it.")
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
