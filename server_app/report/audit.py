"""The section about the label audits, from their comparison with the true labels in a simulation."""

from server_app.audit_scores import Relabelling, Score, Scores
from server_app.report.record import RunRecord
from server_app.report.views import View, unbroken
from server_app.report.wording import NONE, number, percent

WHAT = (
    "Each client has its own list of its labels, the most suspicious first, and no other party sees it. Only a "
    "simulation knows the true labels, so only here can the lists be judged. They are in {place}."
)
COLUMNS = (
    "AUC: probability that a wrong label stands before a right one. Wrong at the top: share of wrong labels among the "
    "first lines of the list, as many as the client has wrong labels. Right: share of right labels as given, as "
    "suggested, and as the client method changed them while it trained. Fixed: wrong labels with the right "
    "suggestion. Spoiled: right labels for which another is suggested."
)


def audit_section(record: RunRecord) -> View:
    """Return the rows of the table of lists and the sentences above it."""
    scores = record.audit
    place = f"clients/<client>/label-audit.{record.config.get('audit.format', 'csv')}"
    notes = [WHAT.format(place=place), *_overall(scores), COLUMNS] if scores.clients else []
    return {
        "audit_notes": [unbroken(note) for note in notes],
        "audit_rows": [_row(score) for score in scores.clients],
        "has_corrected": any(score.corrected for score in scores.clients),
    }


def _overall(scores: Scores) -> list[str]:
    found, ranked = scores.mean("precision_at_wrong"), scores.mean("auc")
    if found is None or ranked is None:
        return []
    suggested = scores.rates("suggested")
    sentences = [
        f"{number(scores.wrong)} of {number(scores.examples)} labels are wrong. On average over the clients, "
        f"{percent(found)} of the labels at the top of a list are wrong ones (AUC {ranked:.3f}).",
        f"If every suggestion were followed, {percent(suggested['accuracy'])} of all labels would be right instead of "
        f"{percent(1 - scores.wrong / scores.examples)}: {percent(suggested['fix_rate'])} of the wrong ones would be "
        f"fixed and {percent(suggested['damage_rate'])} of the right ones spoiled.",
    ]
    changed = [score for score in scores.clients if score.corrected]
    if changed:
        own = Scores(tuple(changed))
        corrected = own.rates("corrected")
        sentences.append(
            f"The client method changed labels of {len(changed)} of {len(scores.clients)} clients while it trained: "
            f"{percent(corrected['accuracy'])} of their labels were right after that, "
            f"{percent(1 - own.wrong / own.examples)} before, and {percent(corrected['precision'])} of the "
            "changes were right."
        )
    return sentences


def _row(score: Score) -> View:
    return {
        "client": score.client,
        "examples": number(score.examples),
        "noise": percent(score.noise_rate),
        "noise_bar": score.noise_rate,
        "estimate": percent(score.estimated_noise_rate),
        "auc": NONE if score.auc is None else f"{score.auc:.3f}",
        "at_wrong": percent(score.precision_at_wrong, 0),
        "given": percent(score.given_accuracy),
        "suggested": percent(accuracy(score, score.suggested)),
        "fixed": f"{score.suggested.fixed} of {score.wrong}",
        "spoiled": f"{score.suggested.damaged} of {score.examples - score.wrong}",
        "corrected": percent(accuracy(score, score.corrected)),
    }


def accuracy(score: Score, labels: Relabelling | None) -> float | None:
    """Return the share of right labels, None without labels."""
    return None if labels is None else labels.right / score.examples
