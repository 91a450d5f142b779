"""Charts of a report as inline SVG (matplotlib, extra ``report``).

Each chart returns None if the run recorded nothing to draw, and raises ``ImportError`` without matplotlib.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server_app.report.drawing import FAINT, FIRST, INK, SECOND, Chart, line, over_rounds, svg
from server_app.report.labels import CLEAN, NOISY, Standing, accuracy
from server_app.report.reading import RunRecord
from server_app.report.summaries import ClientSummary
from server_app.storage.audit_scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {CLEAN: FIRST, NOISY: SECOND, "unknown": FAINT}


def accuracy_chart(record: RunRecord) -> Chart | None:
    """Draw accuracy and macro-F1 on clean test data over the rounds, and apart from them the validation accuracy."""
    names = ("accuracy", "macro-f1", "validation_accuracy")
    accuracy, f1, validation = ([(n, 100 * share) for n, share in record.series(name)] for name in names)
    best = record.best_round
    if not accuracy and not f1 and not validation:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, accuracy, "test accuracy", color=FIRST)
        line(axes, f1, "test macro-F1", color=SECOND, linestyle="--")
        line(axes, validation, "validation accuracy", color=FAINT, linestyle=":")
        for mark in [point for point in validation if point[0] == best]:
            axes.plot(*mark, "o", color=INK, markersize=8, fillstyle="none", label="best on validation")
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
        line(axes, test, "test (clean labels)", color=FIRST)
        line(axes, validation, "validation", color=FAINT, linestyle=":")
        line(axes, train, "training" if corrects else "training (given labels)", color=SECOND, linestyle="--")
        axes.set_ylabel("mean loss per example")

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
            color=FIRST,
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
