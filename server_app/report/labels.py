"""Label sections of a report: who was taken for noisy, since when and how surely, and how good the label audits are."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, median

from server_app.report.reading import RunRecord
from server_app.report.sites import audit_places
from server_app.report.text import NONE, View, counted, enumeration, number, percent, single_line, unbroken
from server_app.storage.audit_scores import Relabelling, Score, Scores, nouns
from server_app.storage.doubted_labels import Doubt

CLEAN, NOISY = "clean", "noisy"
MOST_CLIENTS, MOST_CHANGES = 30, 10
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
MASK_COLUMNS = (
    "AUC: probability that a wrong mask stands before a right one; a mask is wrong if any of its pixels is. Wrong at "
    "the top: share of wrong masks among the first lines of the list, as many as the client has wrong masks. Right: "
    "share of pixels with the right class, as given and as suggested. Fixed: wrong pixels with the right suggestion. "
    "Spoiled: right pixels for which another class is suggested."
)


def audit_section(record: RunRecord) -> View:
    """Return the rows of the table of lists and the sentences above it."""
    scores = record.audit
    place = f"clients/<client>/label-audit.{record.config.get('audit.format', 'csv')}"
    columns = MASK_COLUMNS if scores.of_pixels else COLUMNS
    notes = [WHAT.format(place=place), *_overall(scores), columns] if scores.clients else audit_places(record)
    return {
        "audit_notes": [unbroken(note) for note in notes],
        "audit_rows": [_row(score) for score in scores.clients],
        "audit_of": nouns(scores)[0],
        "has_corrected": any(score.corrected for score in scores.clients),
    }


def _overall(scores: Scores) -> list[str]:
    found, ranked = scores.mean("precision_at_wrong"), scores.mean("auc")
    if found is None or ranked is None:
        return []
    suggested, (many, each) = scores.rates("suggested"), nouns(scores)
    sentences = [
        f"{number(scores.wrong)} of {number(scores.examples)} {many} are wrong. On average over the clients, "
        f"{percent(found)} of the {many} at the top of a list are wrong ones (AUC {ranked:.3f}).",
        f"If every suggestion were followed, {percent(suggested['accuracy'])} of all {each} would be right instead of "
        f"{percent(1 - scores.wrong_labels / scores.labels)}: {percent(suggested['fix_rate'])} of the wrong ones "
        f"would be fixed and {percent(suggested['damage_rate'])} of the right ones spoiled.",
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


def doubt_section(record: RunRecord) -> View:
    """Return some doubted labels with their pictures, and the sentences above them; none where none were kept."""
    right = sum(doubt.given == doubt.true for doubt in record.doubts)
    hits = sum(doubt.suggested == doubt.true for doubt in record.doubts)
    count = len(record.doubts)
    notes = [
        f"The {counted(count, 'label')} that the audits doubt most, two of a client at most: {count - right} of them "
        f"are wrong, and for {hits} the suggested label is the right one.",
        "Such pictures are kept in a simulation on published images only; a real site sees its own alone, by winnow "
        "audit open.",
    ]
    return {"doubts": [_doubt(doubt) for doubt in record.doubts], "doubt_notes": notes}


def _doubt(doubt: Doubt) -> View:
    hit = doubt.suggested == doubt.true
    if doubt.given == doubt.true:
        verdict = "✗ the given label is right"
    elif hit:
        verdict = "✓ wrong, and the suggestion is right"
    else:
        verdict = f"✓ wrong, in truth {single_line(doubt.true, 40) or 'none of the classes'}"
    name = single_line(doubt.name, 60)
    return {
        "client": doubt.client,
        "name": name,
        "given": single_line(doubt.given, 40),
        "suggested": single_line(doubt.suggested, 40),
        "verdict": verdict,
        "kind": "miss" if doubt.given == doubt.true else "hit",
        "png": doubt.png,
        "alt": f"example {name} of client {doubt.client}",
    }


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
        "fixed": f"{score.suggested.fixed} of {score.wrong_labels}",
        "spoiled": f"{score.suggested.damaged} of {score.labels - score.wrong_labels}",
        "corrected": percent(accuracy(score, score.corrected)),
    }


def accuracy(score: Score, labels: Relabelling | None) -> float | None:
    """Return the share of right labels, None without labels."""
    return None if labels is None else labels.right / score.labels


@dataclass(frozen=True)
class Standing:
    """What the strategy last took a client for and why, and the truth where it is known.

    Why is a probability of being noisy, or an estimate of the share of wrong labels, as the strategy has it.
    """

    client: int
    role: str
    posterior: float | None
    noise_rate: float | None
    noise_level: float | None = None


def standings(record: RunRecord) -> list[Standing]:
    """Return the last standing of every client that was ever called clean or noisy, sorted by client."""
    truth = {entry.client: entry.noise_rate for entry in record.registration}
    last = {entry.client: entry for entry in record.client_rounds if entry.role in (CLEAN, NOISY)}
    return [Standing(c, e.role, e.posterior, truth.get(c), e.noise_level) for c, e in sorted(last.items())]


def group_losses(record: RunRecord) -> dict[str, list[tuple[int, float]]]:
    """Return by group (round, mean training loss of its clients in that round)."""
    found: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in record.client_rounds:
        if entry.role and entry.train_loss is not None:
            found[entry.role][entry.round].append(entry.train_loss)
    return {role: [(n, fmean(values)) for n, values in sorted(rounds.items())] for role, rounds in found.items()}


def role_section(record: RunRecord) -> View:
    """Return the rows of the table of roles and the sentences above it; none for a run without roles."""
    found = standings(record)
    scores = {score.client: score for score in record.audit.clients}
    rows = []
    for entry in found:
        score = scores.get(entry.client)
        rows.append(
            {
                "client": entry.client,
                "role": entry.role,
                "noisy": entry.role == NOISY,
                "posterior": percent(entry.posterior, 0),
                "level": percent(entry.noise_level, 0),
                "noise": percent(entry.noise_rate),
                "noise_bar": entry.noise_rate,
                "before": percent(score.given_accuracy if score else None),
                "after": percent(accuracy(score, score.corrected) if score else None),
            }
        )
    notes = [*_history(record), *_truth(found)] if found else []
    return {
        "role_rows": rows,
        "role_notes": [unbroken(note) for note in notes],
        "has_posterior": any(entry.posterior is not None for entry in found),
        "roles_corrected": any(entry.corrected for entry in record.audit.clients),
        "has_level": any(entry.noise_level is not None for entry in found),
    }


def _history(record: RunRecord) -> list[str]:
    """Say when which clients were taken for noisy: one sentence per change, up to the clients that took part."""
    roles: dict[int, str] = {}
    sentences: list[str] = []
    for n in sorted({entry.round for entry in record.client_rounds}):
        now = {e.client: e.role for e in record.client_rounds if e.round == n and e.role in (CLEAN, NOISY)}
        before, roles = roles, {**roles, **now}
        noisy = [client for client, role in sorted(roles.items()) if role == NOISY]
        known_before = {client for client, role in before.items() if role == NOISY}
        if roles and (not before or set(noisy) != known_before):
            who = f": {enumeration(noisy, MOST_CLIENTS)}" if noisy else ""
            sentences.append(f"Round {n}: {len(noisy)} of {counted(len(roles), 'client')} taken for noisy{who}.")
    more = len(sentences) - MOST_CHANGES
    return sentences[:MOST_CHANGES] + [f"The groups changed {counted(more, 'more time')}."] * (more > 0)


def _truth(found: list[Standing]) -> list[str]:
    """Compare the roles with the true share of wrong labels, if it is known and differs."""
    known = [(entry, entry.noise_rate) for entry in found if entry.noise_rate is not None]
    noisy = [rate for entry, rate in known if entry.role == NOISY]
    clean = [rate for entry, rate in known if entry.role == CLEAN]
    if not noisy or not clean or len({rate for _, rate in known}) < 2:
        return []
    middle = median(rate for _, rate in known)
    hits = sum(rate > middle for rate in noisy)
    return [
        f"In truth {percent(fmean(noisy))} of the labels of a client taken for noisy are wrong on average, and "
        f"{percent(fmean(clean))} of one taken for clean; {hits} of the {len(noisy)} taken for noisy belong to the "
        "half of the clients with more wrong labels."
    ]
