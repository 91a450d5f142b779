"""Summaries of clients over a whole run: how often each took part, and how much of the model came from it."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import fmean, median

from server_app.report.reading import ClientRound, RegisteredClient, RunRecord


@dataclass(frozen=True)
class Quarantine:
    """One reason for which replies of a client were set aside, and the rounds in which that happened."""

    reason: str
    rounds: tuple[int, ...]


@dataclass(frozen=True)
class ClientSummary:
    """One client over all rounds.

    Attributes
    ----------
    examples, noise_rate, class_counts
        From the registration: number of examples, share of wrong labels, examples per class; None where unknown.
    attacker
        Whether the client is hostile; None in a run without an attack.
    times_asked
        Number of rounds in which the client was asked to train, whether its reply was used or not.
    mean_weight
        Mean share of the new model that came from this client, in [0, 1], over the rounds in which it was asked and
        weights were given at all; a quarantined reply counts as 0. None if there is no such round.
    last_weight
        That share in the last of these rounds.
    distance
        Median over the rounds of the Euclidean distance of its update to the combined one; None if never measured.
    quarantines
        Why replies were set aside, most frequent reason first.
    name
        What the site wants to be called; empty if it does not say.
    """

    client: int
    examples: int | None
    noise_rate: float | None
    class_counts: tuple[int, ...] | None
    attacker: bool | None
    times_asked: int
    mean_weight: float | None
    last_weight: float | None
    distance: float | None
    quarantines: tuple[Quarantine, ...]
    name: str = ""


@dataclass(frozen=True)
class NoisierHalf:
    """The clients whose share of wrong labels is above the median: their part of all clients, examples and weight."""

    clients: int
    client_share: float
    example_share: float
    weight_share: float


def summarize_clients(record: RunRecord) -> list[ClientSummary]:
    """Return the summary of every client that registered or was in any round, sorted by id."""
    taking_part: defaultdict[int, list[ClientRound]] = defaultdict(list)
    for entry in record.client_rounds:
        taking_part[entry.client].append(entry)
    registration = {entry.client: entry for entry in record.registration}
    weighted = _weighted_rounds(record)
    return [
        _summary(client, registration.get(client), taking_part[client], weighted)
        for client in sorted(registration.keys() | taking_part.keys())
    ]


def _summary(
    client: int, entry: RegisteredClient | None, rounds: list[ClientRound], weighted: Counter[int]
) -> ClientSummary:
    weights = [one.weight or 0.0 for one in rounds if one.round in weighted]
    distances = [one.distance for one in rounds if one.distance is not None]
    return ClientSummary(
        client=client,
        examples=entry.examples if entry else next((one.examples for one in rounds), None),
        noise_rate=entry.noise_rate if entry else None,
        class_counts=entry.class_counts if entry else None,
        attacker=entry.attacker if entry else None,
        times_asked=len(rounds),
        mean_weight=fmean(weights) if weights else None,
        last_weight=weights[-1] if weights else None,
        distance=median(distances) if distances else None,
        quarantines=_quarantines(rounds),
        name=entry.name if entry else "",
    )


def _quarantines(rounds: list[ClientRound]) -> tuple[Quarantine, ...]:
    by_reason: defaultdict[str, list[int]] = defaultdict(list)
    for one in rounds:
        if one.quarantine:
            by_reason[one.quarantine].append(one.round)
    found = [Quarantine(reason, tuple(numbers)) for reason, numbers in by_reason.items()]
    return tuple(sorted(found, key=lambda item: -len(item.rounds)))


def equal_weight(record: RunRecord) -> float | None:
    """Return the weight of a client if all that were asked had the same, averaged over the rounds with weights."""
    asked = _weighted_rounds(record).values()
    return fmean(1 / count for count in asked) if asked else None


def _weighted_rounds(record: RunRecord) -> Counter[int]:
    """Return the number of clients asked in each round in which the aggregation gave weights to clients."""
    weighted = {entry.round for entry in record.client_rounds if entry.weight is not None}
    return Counter(entry.round for entry in record.client_rounds if entry.round in weighted)


def noisier_half(clients: list[ClientSummary]) -> NoisierHalf | None:
    """Compare the clients with many wrong labels with all of them.

    None if fewer than four clients have a known noise rate, example count and weight, or all rates are the same.
    """
    known = [
        (client.noise_rate, client.examples, client.mean_weight)
        for client in clients
        if client.noise_rate is not None and client.examples is not None and client.mean_weight is not None
    ]
    if len(known) < 4:
        return None
    middle = median(rate for rate, _, _ in known)
    noisy = [client for client in known if client[0] > middle]
    examples, weight = sum(examples for _, examples, _ in known), sum(weight for _, _, weight in known)
    if not noisy or not examples or not weight:
        return None
    return NoisierHalf(
        clients=len(noisy),
        client_share=len(noisy) / len(known),
        example_share=sum(examples for _, examples, _ in noisy) / examples,
        weight_share=sum(weight for _, _, weight in noisy) / weight,
    )
