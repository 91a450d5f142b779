"""Pictures of the documentation, drawn from the records of ``winnow run demo``: a round, and what comes out.

    winnow run demo run.output-dir=runs
    python -m benchmarks.doc_pictures runs/*-fedavg runs/*-winnow

writes ``docs/pictures/demo.svg`` (the README's) and ``round.svg`` beside it (that of docs/concepts.md), and prints the
round as a table. Another processor rounds differently, and gets other digits.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_app.report.drawing import FAINT, INK, NO_METADATA, PALETTE, draw_figure
from server_app.report.reading import RunRecord, read_run
from tasks.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parents[1] / "docs/pictures"
BLUE, ORANGE, GREEN = PALETTE[:3]
LOOK = {
    "svg.fonttype": "path",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "legend.fontsize": 9,
}
"""Letters are drawn: a picture of a page has no other font to take, and must fit everywhere."""
WIDE, TALL = (9.2, 3.7), (9.2, 6.4)


@dataclass(frozen=True)
class ClientLine:
    """One client of the round that is drawn; ``share`` is the weight that a plain mean would give it."""

    client: int
    examples: int
    wrong: int
    train_loss: float
    distance: float
    weight: float
    share: float


def client_lines(record: RunRecord, number: int) -> list[ClientLine]:
    """Return what a round's record says of each client.

    Raises
    ------
    ValueError
        If the run has no such round, or a client of it was set aside or says less than is drawn.
    """
    known = {entry.client: entry for entry in record.registration}
    entries = [entry for entry in record.client_rounds if entry.round == number]
    if not entries:
        raise ValueError(f"{record.path} has no round {number} with clients; it has rounds 1 to {record.rounds_done}")
    total = sum(known[entry.client].examples or 0 for entry in entries)
    lines = []
    for entry in entries:
        examples, rate = known[entry.client].examples, known[entry.client].noise_rate
        values = (entry.train_loss, entry.distance, entry.weight)
        if examples is None or rate is None or None in values:
            raise ValueError(f"{record.path}: client {entry.client} of round {number} lacks what is drawn: {entry}")
        measured = [float(value) for value in values if value is not None]
        lines.append(ClientLine(entry.client, examples, round(rate * examples), *measured, examples / total))
    return lines


def round_picture(record: RunRecord, number: int) -> bytes:
    """Draw one round: what each client has, what it reports, what it counts, and the model before and after."""
    lines, accuracy = client_lines(record, number), dict(record.series("accuracy"))
    places = [line.client for line in lines]
    panels: list[tuple[str, str, Callable[[Any], None]]] = [
        ("2  Clients train\non labels as they are", "examples", lambda axes: _labels(axes, lines)),
        (
            "3  They report\ntheir training loss",
            "mean loss",
            lambda axes: axes.barh(places, [line.train_loss for line in lines], color=FAINT),
        ),
        (
            "4  Updates are compared:\ndistance to the result",
            "Euclidean distance",
            lambda axes: axes.barh(places, [line.distance for line in lines], color=FAINT),
        ),
        ("5  The rule weighs them:\ngeometric median", "weight in %", lambda axes: _weights(axes, lines)),
    ]

    def draw(figure: "Figure") -> None:
        first = None
        for place, (title, unit, fill) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), place, sharey=first)
            first = first or axes
            fill(axes)
            axes.set_title(title, linespacing=1.3)
            axes.set_xlabel(unit)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0, labelleft=place == 1)
        assert first is not None
        first.set_yticks(places, [f"client {client}" for client in places], fontsize=8.5)
        first.invert_yaxis()
        before, after = (f"{100 * accuracy[at]:.1f} %" for at in (number - 1, number))
        sent = f"1  The server sends the model of round {number - 1} to {len(lines)} clients"
        made = f"6  Model + weighted mean of updates = model of round {number}"
        measured = "(average of the last rounds: {} right on test data)"
        figure.suptitle(f"{sent} {measured.format(before)}", x=0.01, ha="left", fontsize=11)
        figure.supxlabel(f"{made} {measured.format(after)}", x=0.01, ha="left", fontsize=11)

    return _drawn("round", TALL, draw)


def _labels(axes: "Axes", lines: list[ClientLine]) -> None:
    places = [line.client for line in lines]
    right = [line.examples - line.wrong for line in lines]
    axes.barh(places, right, color=BLUE, label="label right")
    axes.barh(places, [line.wrong for line in lines], left=right, color=ORANGE, hatch="////", edgecolor="white",
              linewidth=0, label="label wrong")  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.09), borderaxespad=0.0, ncols=1)


def _weights(axes: "Axes", lines: list[ClientLine]) -> None:
    places = [line.client for line in lines]
    axes.barh(places, [100 * line.weight for line in lines], color=GREEN, label="weight")
    axes.plot([100 * line.share for line in lines], places, "|", color=INK, markersize=8, markeredgewidth=1.8,
              label="of a plain mean")  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.09), borderaxespad=0.0, ncols=1)


def demo_picture(plain: RunRecord, robust: RunRecord) -> bytes:
    """Draw the accuracy of two runs over the rounds, and how many labels of each client are right, with its list."""
    from matplotlib.ticker import MaxNLocator

    scores = robust.audit.clients
    places = [score.client for score in scores]

    def draw(figure: "Figure") -> None:
        rounds, labels = figure.subplots(1, 2)
        for record, name, colour, marker in (
            (robust, "Winnow", BLUE, "o"),
            (plain, "federated averaging", ORANGE, "s"),
        ):
            points = [(at, 100 * value) for at, value in record.series("accuracy")]
            rounds.plot(*zip(*points, strict=True), label=name, color=colour, marker=marker,
                        linestyle="-" if marker == "o" else "--")  # fmt: skip
        rounds.set(ylim=(0, 102), ylabel="right on clean test images, %", xlabel="round")
        rounds.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        rounds.set_title("Trained on the same wrong labels")
        rounds.legend(loc="lower right")
        suggested = [100 * score.suggested.right / score.examples for score in scores]
        labels.plot(places, suggested, "o", color=BLUE, label="with the suggestions of its list")
        given = [100 * (1 - score.wrong / score.examples) for score in scores]
        labels.plot(places, given, "s", color=ORANGE, label="as given")
        labels.vlines(places, given, suggested, color=FAINT, linewidth=1.2)
        labels.set(ylim=(0, 102), ylabel="right labels of the client, %", xlabel="client", xticks=places[::2])
        labels.set_title("What each client's list is worth to it")
        labels.legend(loc="lower left")

    return _drawn("demo", WIDE, draw)


def _drawn(name: str, inches: tuple[float, float], draw: Callable[["Figure"], None]) -> bytes:
    """Return a drawing on white, so that it can be read on a light and on a dark page."""
    look = {**LOOK, "svg.hashsalt": name}
    return draw_figure(inches, draw, look, format="svg", facecolor="white", metadata=NO_METADATA)


def main() -> None:
    """Write both pictures and print the numbers."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation from two runs of the demo.")
    parser.add_argument("plain", type=Path, help="run directory of the variant fedavg")
    parser.add_argument("robust", type=Path, help="run directory of the variant winnow")
    parser.add_argument("--round", type=int, default=10, help="which round is drawn (default 10)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the pictures")
    args = parser.parse_args()
    plain, robust = read_run(args.plain), read_run(args.robust)
    args.output.mkdir(parents=True, exist_ok=True)
    replace_file(args.output / "demo.svg", demo_picture(plain, robust))
    replace_file(args.output / "round.svg", round_picture(robust, args.round))
    for line in client_lines(robust, args.round):
        print(
            f"| {line.client} | {line.examples} | {line.wrong} | {line.train_loss:.2f} | {line.distance:.1f} "
            f"| {100 * line.share:.1f} % | {100 * line.weight:.1f} % |"
        )


if __name__ == "__main__":
    main()
