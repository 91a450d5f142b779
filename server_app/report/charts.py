"""Charts of a report as inline SVG (matplotlib, extra ``report``).

Each chart returns None if the run recorded nothing to draw, and raises ``ImportError`` without matplotlib.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server_app.report.drawing import FAINT, INK, Chart, line, over_rounds, series_look, svg
from server_app.report.labels import CLEAN, NOISY, Standing, accuracy
from server_app.report.reading import RunRecord
from server_app.report.summaries import ClientSummary
from server_app.storage.audit_scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIRST, SECOND, THIRD = (series_look(place) for place in range(3))
"""Looks of test, training and validation data, and of clean and noisy clients: colour, marker and dashes differ."""
LOOKS = {CLEAN: FIRST, NOISY: SECOND, "unknown": THIRD | {"color": FAINT}}


def accuracy_chart(record: RunRecord) -> Chart | None:
    """Draw accuracy and macro-F1 on clean test data over the rounds, and apart from them the validation accuracy."""
    names = ("accuracy", "macro-f1", "validation_accuracy")
    accuracy, f1, validation = ([(n, 100 * share) for n, share in record.series(name)] for name in names)
    best = record.best_round
    if not accuracy and not f1 and not validation:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, accuracy, "test accuracy", **FIRST)
        line(axes, f1, "test macro-F1", **SECOND)
        line(axes, validation, "validation accuracy", **THIRD)
        for mark in [point for point in validation if point[0] == best]:
            axes.plot(*mark, "o", color=INK, markersize=10, fillstyle="none", label="best round")
        highest = max(share for _, share in [*accuracy, *f1, *validation])
        axes.set_ylim(0, min(10 * ((highest + 3) // 10 + 1), 102))  # room for the mark of the best round
        axes.set_ylabel("% of the examples")

    note = "Higher is better. Test: clean test data that no client has, by which nothing is chosen."
    validated = " Validation: training examples that are held out, by which the best round is chosen."
    return Chart("Accuracy", over_rounds("accuracy", draw), note + validated * bool(validation))


def loss_chart(record: RunRecord) -> Chart | None:
    """Draw the loss on clean test data and on validation data, and the clients' training loss, over the rounds."""
    test, train, validation = (record.series(name) for name in ("loss", "train_loss", "validation_loss"))
    corrects = any(entry.role == "noisy" for entry in record.client_rounds)
    if not test and not train and not validation:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, test, "test (clean labels)", **FIRST)
        line(axes, train, "training" if corrects else "training (given labels)", **SECOND)
        line(axes, validation, "validation", **THIRD)
        axes.set_ylabel("mean loss (nats)")

    theirs = ", and that of the client method at clients taken for noisy" if corrects else ""
    note = (
        "Lower is better. Test, validation: cross-entropy on clean test data, and on what is held out. Training: the "
        f"clients' own loss function ({record.config.get('loss.name', 'not recorded')}) on the labels they were given"
        f"{theirs}, so its scale may differ."
    )
    return Chart("Loss", over_rounds("loss", draw), note)


def trust_chart(clients: Sequence[ClientSummary], equal_weight: float | None) -> Chart | None:
    """Draw each client's mean weight against its share of wrong labels, if these differ between clients."""
    shown = [client for client in clients if client.noise_rate is not None and client.mean_weight is not None]
    if equal_weight is None or len({client.noise_rate for client in shown}) < 2:
        return None
    most = max(client.examples or 1 for client in shown)

    def draw(axes: "Axes") -> None:
        axes.axhline(100 * equal_weight, color=FAINT, linewidth=1.2, linestyle="--", label="equal weights")
        axes.scatter(
            [100 * (client.noise_rate or 0.0) for client in shown],
            [100 * (client.mean_weight or 0.0) for client in shown],
            s=[12 + 70 * (client.examples or 1) / most for client in shown],
            color=FIRST["color"],
            alpha=0.65,
            linewidths=0,
            label="one client (larger = more examples)",
        )
        axes.set_ylim(0, 108 * max(equal_weight, *(client.mean_weight or 0.0 for client in shown)))
        axes.set_xlabel("wrong labels (% of the client's labels)")
        axes.set_ylabel("mean weight (% of model)")

    note = "If the points fall towards the right, clients with more wrong labels had less influence on the model."
    return Chart("Does the model trust clients with wrong labels less?", svg("trust", draw), note)


def standing_chart(found: Sequence[Standing]) -> Chart | None:
    """Draw what decided about each client, one point per client, against its true share of wrong labels.

    That is the probability of being noisy, or where no client has one the estimated share of wrong labels. Where nobody
    knows the truth, as in a real federation, clients are in order of it.
    """
    probable = any(entry.posterior is not None for entry in found)
    reasons = [(entry, entry.posterior if probable else entry.noise_level) for entry in found]
    reached = sorted(((e, value) for e, value in reasons if value is not None), key=lambda pair: pair[1])
    if not reached:
        return None
    true = [
        (entry.role, 100 * (entry.noise_rate or 0.0), value) for entry, value in reached if entry.noise_rate is not None
    ]
    known = true or [(entry.role, float(place), value) for place, (entry, value) in enumerate(reached, 1)]

    def draw(axes: "Axes") -> None:
        for role in (CLEAN, NOISY):
            rates = [across for kind, across, _ in known if kind == role]
            values = [100 * value for kind, _, value in known if kind == role]
            axes.scatter(rates, values, s=36, **_marked(LOOKS[role]), alpha=0.7, label=f"taken for {role}")
        axes.set_ylim(-4, 104)
        axes.set_xlabel("wrong labels (% of the client's labels)" if true else "clients, from least to most suspected")
        axes.set_ylabel("probability of noisy (%)" if probable else "estimated wrong labels (%)")
        if not true:
            axes.set_xticks([])

    note = "A good detector puts the points with few wrong labels at the bottom and those with many at the top."
    if not true:
        note = "A clear step between the two groups is a sure partition; what lies near 50 % could be either."
    title = "Were the right clients taken for noisy?" if true else "How sure is the partition of the clients?"
    return Chart(title, svg("standing", draw), note)


def _marked(look: dict[str, Any]) -> dict[str, Any]:
    """Return the look of single points."""
    return {"color": look["color"], "marker": look["marker"]}


def group_chart(losses: dict[str, list[tuple[int, float]]]) -> Chart | None:
    """Draw the mean training loss of each group of clients over the rounds."""
    if not losses.keys() & {CLEAN, NOISY}:
        return None

    def draw(axes: "Axes") -> None:
        for role, look in LOOKS.items():
            line(axes, losses.get(role, []), role, **look)
        axes.set_ylabel("mean training loss (nats)")

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
        axes.plot(places, suggested, "^", color=FIRST["color"], markersize=5, label="as suggested")
        changed = [
            (i, 100 * score.corrected.right / score.examples) for i, score in enumerate(clients) if score.corrected
        ]
        if changed:
            axes.plot(
                *zip(*changed, strict=True),
                "D",
                color=SECOND["color"],
                markersize=6,
                fillstyle="none",
                label="as changed",
            )
        axes.set_ylim(0, 104)
        axes.set_xticks([])
        axes.set_xlabel("clients, from fewest to most wrong labels")
        axes.set_ylabel("right labels (%)")

    note = "As changed: with the labels that the client method changed while it trained, where it did."
    if not any(score.corrected for score in clients):
        note = "As suggested: if the client followed every suggestion of its list."
    return Chart("How many labels are right?", svg("labels", draw), note)
