"""A run in a few plain sentences."""

from server_app.report.record import RunRecord
from server_app.report.wording import counted, measure_value, number, percent, single_line

SUBJECTS = {"accuracy": "Accuracy", "macro-f1": "Macro-F1", "loss": "Loss"}


def headline(record: RunRecord) -> str:
    """Say what a run achieved, with whom, and why it ended if it did not play all its rounds."""
    told = [_ending(record), _progress(record)] if record.status == "failed" else [_progress(record), _ending(record)]
    sentences = [sentence for sentence in (*told, _participants(record), _privacy(record)) if sentence]
    return " ".join(sentence if sentence[-1] in ".?!" else f"{sentence}." for sentence in sentences)


def _progress(record: RunRecord) -> str:
    measured = next((name for name in SUBJECTS if record.series(name)), None)
    if measured is None:
        return "No evaluation on clean test data was recorded" if record.rounds_done else ""
    series = record.series(measured)
    (first_round, first), (last_round, last) = series[0], series[-1]
    subject = f"{SUBJECTS[measured]} on clean test data"
    start, end = measure_value(measured, first), measure_value(measured, last)
    if len(series) == 1:
        return f"{subject} was {end} {f'after round {last_round}' if last_round else 'before training'}"
    change = f"stayed at {end}" if start == end else f"{'rose' if last > first else 'fell'} from {start} to {end}"
    best = record.best(measured)
    assert best is not None, "a measured series has a best value"
    highest = measure_value(measured, best[1])
    peak = "" if highest == end else f"; best {highest} at round {best[0]}"
    return f"{subject} {change} in {counted(last_round - first_round, 'round')}{peak}"


def _ending(record: RunRecord) -> str:
    """Say how the run ended, unless it completed all its rounds."""
    planned = record.planned_rounds
    played = f"{record.rounds_done} of {counted(planned, 'round')}" if planned else counted(record.rounds_done, "round")
    when = f"after {played}" if record.rounds_done else "before the first round"
    reason = f": {single_line(record.reason.strip().splitlines()[0]).rstrip(':')}" if record.reason.strip() else ""
    if record.status == "failed":
        return f"The run failed {when}{reason or ' and recorded no reason'}"
    if record.status == "stopped":
        return f"The run was stopped {when}{reason}"
    if record.status == "completed":
        return f"The run ended {when}{reason}" if record.rounds_done < (planned or 0) else ""
    return f"The run has recorded {played} and no end: it is still running, or it was interrupted"


def _participants(record: RunRecord) -> str:
    """Say how many clients took part, how wrong their labels are, and what was set aside."""
    if not record.roster:
        return ""
    parts = [counted(len(record.roster), "client")]
    hostile = sum(entry.attacker is True for entry in record.roster)
    if hostile:
        parts.append(f"{hostile} of them hostile")
    for group in sorted({entry.same_data for entry in record.roster if entry.same_data}):
        parts.append(f"clients {' and '.join(map(str, group))} with exactly the same data")
    rates = [entry.noise_rate for entry in record.roster if entry.noise_rate is not None]
    if rates:
        worst = max(rates)
        parts.append(
            f"labels up to {percent(worst, 0 if worst >= 0.1 else 1)} wrong" if worst else "all labels correct"
        )
    if record.rounds_done:
        quarantined = record.total("quarantined")
        parts.append(f"{counted(quarantined, 'reply') if quarantined else 'no reply'} quarantined")
    skipped = sum(entry.skipped for entry in record.rounds)
    return ", ".join(parts + ([f"{counted(skipped, 'round')} skipped"] if skipped else []))


def _privacy(record: RunRecord) -> str:
    """Say what has been spent of the clients' privacy, if it was accounted."""
    epsilon = record.final("epsilon")
    spent = f"epsilon {number(epsilon)} at delta {record.config.get('privacy.delta')}"
    return "" if epsilon is None else f"Privacy spent, per client: {spent}"
