"""The section about the clients that a strategy takes for noisy: who, since when, how surely, and how rightly."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, median

from server_app.report.audit import accuracy
from server_app.report.record import RunRecord
from server_app.report.views import View, unbroken
from server_app.report.wording import counted, enumeration, percent

CLEAN, NOISY = "clean", "noisy"
MOST_CLIENTS, MOST_CHANGES = 30, 10


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
    truth = {entry.client: entry.noise_rate for entry in record.roster}
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
        "has_level": any(entry.noise_level is not None for entry in found),
    }


def _history(record: RunRecord) -> list[str]:
    """Say when which clients were taken for noisy: one sentence per change, up to the clients that took part."""
    roles: dict[int, str] = {}
    sentences: list[str] = []
    for number in sorted({entry.round for entry in record.client_rounds}):
        now = {e.client: e.role for e in record.client_rounds if e.round == number and e.role in (CLEAN, NOISY)}
        before, roles = roles, {**roles, **now}
        noisy = [client for client, role in sorted(roles.items()) if role == NOISY]
        known_before = {client for client, role in before.items() if role == NOISY}
        if roles and (not before or set(noisy) != known_before):
            who = f": {enumeration(noisy, MOST_CLIENTS)}" if noisy else ""
            sentences.append(f"Round {number}: {len(noisy)} of {counted(len(roles), 'client')} taken for noisy{who}.")
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
