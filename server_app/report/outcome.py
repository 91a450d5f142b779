"""Outcome of a run in a headline: what it achieved and how surely, whether it lasted, with whom, from which labels.

How sure is a 95 % interval for the share of right answers if other test examples had been drawn from the same source:
Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
Association 1927. It says nothing of another seed, which a sweep shows.
"""

from math import sqrt
from statistics import NormalDist

from server_app.report.reading import RunRecord
from server_app.report.text import counted, is_share, measure_value, number, percent, points, single_line
from tasks.validation_split import VALIDATION

SUBJECTS = {"accuracy": "Accuracy", "macro-f1": "Macro-F1", "loss": "Loss"}
DATA = {"": "clean test data", VALIDATION: "validation data"}
"""By the beginning of a measure's name, on which data the server takes it."""
CONFIDENCE = 0.95
WORSE = 0.05
"""Share that must be lost again before it is called a fall; half of what was gained makes it a collapse."""


def headline(record: RunRecord) -> str:
    """Say what a run achieved, with whom, and why it ended if it did not do all its rounds."""
    reached = (_progress(record), _collapse(record))
    first = (_ending(record), *reached) if record.status == "failed" else (*reached, _ending(record))
    sentences = [sentence for sentence in (*first, _participants(record), _privacy(record)) if sentence]
    return " ".join(sentence if sentence[-1] in ".?!" else f"{sentence}." for sentence in sentences)


def wilson_interval(right: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the ends of the interval of Wilson (1927) for a share, both in [0, 1]; ``of`` must not be 0.

    >>> [round(end, 4) for end in wilson_interval(9, 10)]
    [0.5958, 0.9821]
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return 0.0 if right == 0 else low, 1.0 if right == of else high


def test_interval(record: RunRecord, accuracy: float | None) -> tuple[float, float] | None:
    """Return the interval of an accuracy on the test examples; None where their number is unknown.

    Of pixels there is none: those of one image are not independent.
    """
    if accuracy is None or not record.tested or record.series("mean-iou") or record.series("dice"):
        return None
    return wilson_interval(round(accuracy * record.tested), record.tested)


def interval_in_words(record: RunRecord, accuracy: float | None) -> str:
    """Return the interval of an accuracy such as ``95 % interval 84.3 to 91.0 %``; empty where there is none."""
    ends = test_interval(record, accuracy)
    return "" if ends is None else f"95 % interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def _progress(record: RunRecord) -> str:
    measured, data = _measured(record)
    if not measured:
        return "No evaluation on clean test data was recorded" if record.rounds_done else ""
    series = record.series(measured)
    (first_round, first), (last_round, last) = series[0], series[-1]
    subject = f"{SUBJECTS[measured.removeprefix(VALIDATION)]} on {data}"
    start, end = measure_value(measured, first), measure_value(measured, last)
    sure = _how_sure(record, last) if measured == "accuracy" else ""
    if len(series) == 1:
        return f"{subject} was {end} {f'after round {last_round}' if last_round else 'before training'}{sure}"
    change = f"stayed at {end}" if start == end else f"{'rose' if last > first else 'fell'} from {start} to {end}"
    best, known = record.best_round, record.at_best(measured)
    chosen = f"; {measure_value(measured, known)} after round {best}, the best on validation data"
    return f"{subject} {change}{sure} in {counted(last_round - first_round, 'round')}" + (
        chosen if known is not None and best != last_round else ""
    )


def _measured(record: RunRecord) -> tuple[str, str]:
    """Return the first of the usual measures that was recorded and on which data; both empty if none was."""
    known = ((f"{prefix}{name}", data) for prefix, data in DATA.items() for name in SUBJECTS)
    return next(((name, data) for name, data in known if record.series(name)), ("", ""))


def _how_sure(record: RunRecord, accuracy: float) -> str:
    interval = interval_in_words(record, accuracy)
    return f" ({record.tested:,} examples, {interval})" if interval else ""


def _collapse(record: RunRecord) -> str:
    """Say that the model was clearly better before, if it was: after the best round, or the highest if none was chosen.

    Clearly is by 5 percentage points and more, and beyond what the intervals of both leave open.
    """
    measured, _ = _measured(record)
    series = record.series(measured) if measured and is_share(measured) else []
    if len(series) < 2:
        return ""
    best = record.at_best(measured)
    at, before = (record.best_round, best) if best is not None else max(series, key=lambda point: point[1])
    (_, first), (_, last) = series[0], series[-1]
    if at == series[0][0] or before - last < WORSE or _overlap(record, measured, before, last):
        return ""
    collapsed = before - last >= (before - first) / 2
    verb = "collapsed" if collapsed else "became worse"
    highest = "" if best is not None else ", where it was highest"
    lost = points(before - last).lstrip("+")
    return f"The model {verb} after round {at}{highest}: it lost {lost} percentage points until the end"


def _overlap(record: RunRecord, measured: str, before: float, last: float) -> bool:
    if measured != "accuracy":
        return False
    high, low = test_interval(record, last), test_interval(record, before)
    return bool(high and low and high[1] >= low[0])


def wrong_share(record: RunRecord) -> tuple[float, str] | None:
    """Return the share of wrong labels among those of all clients, and whether it is ``known`` or ``estimated``.

    Only a simulation knows it, of the labels that it made wrong itself; None where it made none. Estimated it is where
    the strategy has estimated each client's; else this is None.
    """
    known = [(entry.noise_rate, entry.examples) for entry in record.registration]
    levels = {entry.client: entry.noise_level for entry in record.client_rounds if entry.noise_level is not None}
    estimated = [(levels.get(entry.client), entry.examples) for entry in record.registration]
    for pairs, how in ((known, "known"), (estimated, "estimated")):
        weighed = [(rate, count) for rate, count in pairs if rate is not None and count is not None]
        total = sum(count for _, count in weighed)
        if total and len(weighed) == len(pairs):
            share = sum(rate * count for rate, count in weighed) / total
            return (share, how) if share or how == "estimated" else None
    return None


def _ending(record: RunRecord) -> str:
    """Say how the run ended, unless it completed all its rounds."""
    planned = record.planned_rounds
    done = f"{record.rounds_done} of {counted(planned, 'round')}" if planned else counted(record.rounds_done, "round")
    when = f"after {done}" if record.rounds_done else "before the first round"
    reason = f": {single_line(record.reason.strip().splitlines()[0]).rstrip(':')}" if record.reason.strip() else ""
    if record.status == "failed":
        return f"The run failed {when}{reason or ' and recorded no reason'}"
    if record.status == "stopped":
        return f"The run was stopped {when}{reason}"
    if record.status == "completed":
        return f"The run ended {when}{reason}" if record.rounds_done < (planned or 0) else ""
    return f"The run has recorded {done} and no end: it is still running, or it was interrupted"


def _participants(record: RunRecord) -> str:
    """Say how many clients took part, how wrong their labels are, and what was set aside."""
    if not record.registration:
        return ""
    parts = [counted(len(record.registration), "client")]
    hostile = sum(entry.attacker is True for entry in record.registration)
    if hostile:
        parts.append(f"{hostile} of them hostile")
    for group in sorted({entry.same_data for entry in record.registration if entry.same_data}):
        parts.append(f"clients {' and '.join(map(str, group))} with exactly the same data")
    parts += _wrong_labels(record)
    if record.rounds_done:
        quarantined = record.total("quarantined")
        parts.append(f"{counted(quarantined, 'reply') if quarantined else 'no reply'} quarantined")
    skipped = sum(entry.skipped for entry in record.rounds)
    return ", ".join(parts + ([f"{counted(skipped, 'round')} skipped"] if skipped else []))


def _wrong_labels(record: RunRecord) -> list[str]:
    """Say how many labels are wrong, as far as anybody knows."""
    found = wrong_share(record)
    rates = [entry.noise_rate for entry in record.registration if entry.noise_rate is not None]
    worst = max(rates, default=0.0)
    if found and found[1] == "estimated":
        return [f"an estimated {_rounded(found[0])} of all labels wrong"]
    if found and worst:
        overall, highest = _rounded(found[0]), _rounded(worst)
        return [
            f"{overall} of all labels made wrong" + (f", up to {highest} at one client" if highest != overall else "")
        ]
    if rates:
        return [f"labels up to {_rounded(worst)} wrong" if worst else "no label made wrong"]
    return []


def _rounded(share: float) -> str:
    return percent(share, 0 if share >= 0.1 else 1)


def _privacy(record: RunRecord) -> str:
    """Say what has been spent of the clients' privacy, if it was accounted."""
    epsilon = record.final("epsilon")
    spent = f"epsilon {number(epsilon)} at delta {record.config.get('privacy.delta')}"
    return "" if epsilon is None else f"Privacy spent, per client: {spent}"
