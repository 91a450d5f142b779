"""Heat map of aggregation weights: how much of each round's model comes from each client."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from server_app.report.drawing import Chart, heat_map, name_ticks, svg
from server_app.report.reading import ClientRound, RunRecord
from server_app.report.text import counted, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLIENTS, MOST_ROUNDS = 300, 200
COLOUR = "#3d8ec9"  # blue, which all eyes tell from white
FAINTEST = 0.12  # shade of a weight of 0, which is not that of the page: there a client was not asked
WIDTH, ROW, ROOM = 5.2, 0.19, 0.8  # inches: of the figure, of a client in it, and of what is around the cells
LEAST, MOST = 2.2, 7.5  # inches of its height
ORDINALS = {2: "nd", 3: "rd"}
SET_ASIDE = "\N{MULTIPLICATION SIGN}"
Weights = npt.NDArray[np.float64]


def weight_map(record: RunRecord) -> Chart | None:
    """Draw clients against rounds, those with the fewest wrong labels at the top where that is known.

    None for less than two clients or rounds with weights, and for more than ``MOST_CLIENTS`` clients.
    """
    known = {entry.round for entry in record.client_rounds if entry.weight is not None}
    weighted = sorted(known)
    entries = [entry for entry in record.client_rounds if entry.round in known]
    truth = {entry.client: entry.noise_rate for entry in record.registration}
    clients = sorted({entry.client for entry in entries}, key=lambda client: (truth.get(client) or 0.0, client))
    step = -(-len(weighted) // MOST_ROUNDS)
    if len(weighted) < 2 or not 2 <= len(clients) <= MOST_CLIENTS:
        return None
    rounds = weighted[::step]
    weights, set_aside = weight_table(entries, clients, rounds)
    highest = float(np.nanmax(weights)) or 1.0
    names = [_name(client, truth.get(client)) for client in clients]
    inches = (WIDTH, min(max(LEAST, ROOM + ROW * len(clients)), MOST))

    def draw(axes: "Axes") -> None:
        texts = [SET_ASIDE if aside else "" for aside in set_aside.flat]
        heat_map(
            axes, FAINTEST + (1 - FAINTEST) * weights / highest, COLOUR, texts, (WIDTH - 2 * ROOM, inches[1] - ROOM)
        )
        name_ticks(axes.yaxis, names)
        axes.tick_params(axis="y", labelsize=8 if len(clients) <= 25 else 7)
        _name_rounds(axes, rounds)
        axes.set(xlabel="round", ylabel="client (wrong labels)" if any(truth.values()) else "client")

    return Chart(
        "Whose model is it, round by round?", svg("weights", draw, inches), _note(highest, weights, set_aside, step)
    )


def weight_table(
    entries: list[ClientRound], clients: list[int], rounds: list[int]
) -> tuple[Weights, npt.NDArray[np.bool_]]:
    """Return the weights (N, R), NaN where a client was not asked, and where its reply was set aside."""
    row, column = ({key: place for place, key in enumerate(keys)} for keys in (clients, rounds))
    weights = np.full((len(clients), len(rounds)), np.nan)
    aside = np.zeros(weights.shape, dtype=np.bool_)
    for entry in entries:
        if entry.round in column:
            place = row[entry.client], column[entry.round]
            weights[place] = entry.weight or 0.0
            aside[place] = bool(entry.quarantine)
    return weights, aside


def _name(client: int, noise_rate: float | None) -> str:
    return str(client) if noise_rate is None else f"{client} ({percent(noise_rate, 0)})"


def _name_rounds(axes: "Axes", rounds: list[int]) -> None:
    """Name every column, or some at even distances."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, len(rounds)) if len(rounds) / step <= 16)
    places = range(0, len(rounds), step)
    axes.set_xticks(places, [str(rounds[place]) for place in places])


def _note(highest: float, weights: Weights, aside: npt.NDArray[np.bool_], step: int) -> str:
    parts = [f"Lightest: weight 0; darkest: {percent(highest)} of the round's model."]
    if np.isnan(weights).any():
        parts.append("No cell: not asked in this round.")
    if aside.any():
        parts.append(f"{SET_ASIDE}: the reply was set aside, {counted(int(aside.sum()), 'time')} here.")
    if step > 1:
        parts.append(f"Every {step}{ORDINALS.get(step, 'th')} round is shown.")
    return " ".join(parts)
