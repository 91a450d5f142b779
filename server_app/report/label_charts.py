"""Charts about labels: who is taken for noisy, and how right labels are before and after correction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server_app.audit_scores import Scores
from server_app.report.audit import accuracy
from server_app.report.charts import FAINT, FIRST, SECOND, Chart, line, over_rounds, svg
from server_app.report.roles import CLEAN, NOISY, Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {CLEAN: FIRST, NOISY: SECOND, "unknown": FAINT}


def standing_chart(found: Sequence[Standing]) -> Chart | None:
    """Draw what decided about each client against its true share of wrong labels, one point per client.

    That is the probability of being noisy, or where no client has one the estimated share of wrong labels.
    """
    probable = any(entry.posterior is not None for entry in found)
    reasons = [(entry, entry.posterior if probable else entry.noise_level) for entry in found]
    known = [
        (entry.role, 100 * entry.noise_rate, 100 * value)
        for entry, value in reasons
        if entry.noise_rate is not None and value is not None
    ]
    if not known:
        return None

    def draw(axes: "Axes") -> None:
        for role in (CLEAN, NOISY):
            rates = [rate for kind, rate, _ in known if kind == role]
            values = [value for kind, _, value in known if kind == role]
            axes.scatter(rates, values, s=36, color=COLOURS[role], alpha=0.65, label=f"taken for {role}")
        axes.set_ylim(-4, 104)
        axes.set_xlabel("wrong labels (% of the client's labels)")
        axes.set_ylabel("probability of noisy (%)" if probable else "estimated wrong labels (%)")

    note = "A good detector puts the points with few wrong labels at the bottom and those with many at the top."
    return Chart("Were the right clients taken for noisy?", svg("standing", draw), note)


def group_chart(losses: dict[str, list[tuple[int, float]]]) -> Chart | None:
    """Draw the mean training loss of each group of clients over the rounds."""
    if not losses.keys() & {CLEAN, NOISY}:
        return None

    def draw(axes: "Axes") -> None:
        for role, colour in COLOURS.items():
            line(axes, losses.get(role, []), role, color=colour)
        axes.set_ylabel("mean training loss")

    note = (
        "Noisy clients may minimise another loss than clean ones, so the two levels need not compare; "
        "the course of each does."
    )
    return Chart("Clean and noisy clients over the rounds", over_rounds("groups", draw), note)


def label_chart(scores: Scores) -> Chart | None:
    """Draw for each client how many of its labels are right: as given, as suggested, and as the method changed them."""
    clients = sorted(scores.clients, key=lambda score: score.noise_rate)
    if not scores.wrong:
        return None

    def draw(axes: "Axes") -> None:
        places = range(len(clients))
        given = [100 * score.given_accuracy for score in clients]
        suggested = [100 * (accuracy(score, score.suggested) or 0.0) for score in clients]
        axes.vlines(places, given, suggested, color=FAINT, linewidth=1.2)
        axes.plot(places, given, "o", color=FAINT, markersize=5, label="as given")
        axes.plot(places, suggested, "o", color=FIRST, markersize=5, label="as suggested")
        changed = [
            (i, 100 * score.corrected.right / score.examples) for i, score in enumerate(clients) if score.corrected
        ]
        if changed:
            axes.plot(
                *zip(*changed, strict=True), "D", color=SECOND, markersize=4, fillstyle="none", label="as changed"
            )
        axes.set_ylim(0, 104)
        axes.set_xticks([])
        axes.set_xlabel("clients, from fewest to most wrong labels")
        axes.set_ylabel("right labels (%)")

    note = "As changed: with the labels that the client method changed while it trained, where it did."
    if not any(score.corrected for score in clients):
        note = "As suggested: if the client followed every suggestion of its list."
    return Chart("How many labels are right?", svg("labels", draw), note)
