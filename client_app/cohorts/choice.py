"""Rounds of several clients in one process: side by side where that is possible and faster, else one after the other.

``train.cohort`` says how many; what stands in the way is said in the log, once in a process.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from client_app.acceleration import timed
from client_app.attacks import BuildRule, is_hostile, run_client
from client_app.cohorts.batch_losses import joint_loss
from client_app.cohorts.networks import network_problem
from client_app.cohorts.training import Member, train_together
from client_app.local import prepare
from client_app.losses.joint import NotJointError
from client_app.methods import FitResult, Plan, PlannedMethod, RoundConfig, State
from client_app.trainer import BatchLoss, LocalData, Trainer
from tasks.base import ClientData
from tasks.settings import AUTO, OFF, Settings

logger = logging.getLogger(__name__)

LARGEST_COHORT = 100
STACKED_BYTES = 8_000_000
"""Parameters of a cohort of ``auto``: with more of them each step reads them from memory, not from the cache."""
LARGEST_NETWORK = 1_000_000
"""Parameters beyond which ``auto`` does not try: such a network is bound by arithmetic."""
TRIED_CLIENTS, TRIED_BATCHES = 10, 2
WORTH = 1.05
"""How many times faster a cohort must be than one client after the other."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One client's round: its model, which holds the received weights, its data, what is asked, and its state."""

    model: nn.Module
    data: ClientData
    round_config: RoundConfig
    state: State | None


def run_clients(
    jobs: Sequence[Job], settings: Settings, device: torch.device, build_rule: BuildRule | None = None
) -> list[FitResult]:
    """Do what :func:`client_app.attacks.run_client` does for each job, side by side where ``train.cohort`` says so."""
    found: dict[int, FitResult] = {}
    size = cohort_size(settings, jobs[0].model) if len(jobs) > 1 else 1
    if size > 1:
        honest = [place for place, job in enumerate(jobs) if not is_hostile(settings, job.round_config)]
        for alike in groups(honest, lambda place: _start(jobs[place])):
            for first in range(0, len(alike), size):
                places = alike[first : first + size]
                trained = side_by_side([jobs[place] for place in places], settings, device)
                found |= {places[place]: result for place, result in trained.items()}
    return [
        found[place]
        if place in found
        else run_client(job.model, job.data, settings, job.round_config, job.state, device, build_rule)
        for place, job in enumerate(jobs)
    ]


def cohort_size(settings: Settings, model: nn.Module) -> int:
    """Return how many clients with this model are trained side by side at most; 1 = one after the other."""
    wanted = settings.train.cohort
    if wanted == OFF:
        return 1
    if wanted != AUTO:
        return int(wanted)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if trained > LARGEST_NETWORK:
        say(f"the network has more than {LARGEST_NETWORK:,} parameters")
        return 1
    return max(2, min(LARGEST_COHORT, STACKED_BYTES // (4 * max(trained, 1))))


def side_by_side(jobs: Sequence[Job], settings: Settings, device: torch.device) -> dict[int, FitResult]:
    """Train the models of those jobs in place that can and should be trained together; their results by place.

    The others' models are as they were.
    """
    known = _KNOWN.setdefault((settings, len(jobs).bit_length()), {})
    if len(jobs) < 2 or (known and not any(known.values())):
        return {}
    found: dict[int, FitResult] = {}
    try:
        planned = [_planned(job, settings, device) for job in jobs]
    except NotJointError as problem:
        say(str(problem))
        known[None] = False
        return {}
    for places in groups(range(len(jobs)), lambda place: type(planned[place][0].batch_loss)):
        members = [planned[place][1] for place in places]
        kind = type(members[0].batch_loss)
        if len(members) > 1 and kind not in known:
            known[kind] = _is_worth_it(members, settings, device)
        if len(members) > 1 and known[kind]:
            for place, trained in zip(places, train_together(members), strict=True):
                found[place] = planned[place][0].finish(trained)
    return found


def groups(items: Iterable[T], key: Callable[[T], object]) -> list[list[T]]:
    """Return the items in groups of equal keys, in order of their first ones."""
    found: dict[object, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


@cache
def say(problem: str) -> None:
    """Log why clients are not trained side by side, once in a process."""
    logger.warning("Clients are trained one after the other: %s", problem)


def _start(job: Job) -> tuple[object, ...]:
    """Return what clients must have in common to be trained together: the weights that they received, and the rate."""
    state = job.model.state_dict().values()
    weights = (tensor.detach().cpu().numpy().tobytes() for tensor in state if isinstance(tensor, torch.Tensor))
    return job.round_config.learning_rate, *map(hash, weights)


def _planned(job: Job, settings: Settings, device: torch.device) -> tuple[Plan, Member]:
    """Return a client's plan and its part in a cohort.

    Raises
    ------
    NotJointError
        If the method or the setting allows none.
    """
    if settings.train.precision != "float32":
        raise NotJointError(f"train.precision is {settings.train.precision}")
    if settings.train.decorrelation:
        raise NotJointError("train.decorrelation looks at the features of one client at a time")
    method, context, state = prepare(job.data, settings, job.round_config, job.state, device)
    if not isinstance(method, PlannedMethod) or type(method).fit is not PlannedMethod.fit:
        raise NotJointError(f"the method {settings.method.name} has a training of its own")
    plan = method.plan(job.model, context, job.round_config, state)
    rate, stream = job.round_config.learning_rate, job.round_config.stream
    return plan, Member(job.model, context.trainer, plan.local, plan.batch_loss, rate, stream)


_KNOWN: dict[tuple[Settings, int], dict[type[BatchLoss] | None, bool]] = {}
"""What this process has found out, by the settings and about how many clients there are: which batch losses gain.

None stands for all of them, where the method or a setting allows none.
"""


def _is_worth_it(members: Sequence[Member], settings: Settings, device: torch.device) -> bool:
    """Tell whether members can be trained together and, where that is to be measured, whether it is faster."""
    if problem := _problem(members):
        say(problem)
        return False
    return settings.train.cohort != AUTO or _is_faster(members, device)


def _problem(members: Sequence[Member]) -> str:
    """Return why members cannot be trained together; empty if they can."""
    first = members[0]
    try:
        joint_loss([member.batch_loss for member in members])
    except NotJointError as problem:
        return str(problem)
    model = first.model.to(first.trainer.device)
    return network_problem(model, first.trainer.task.prepare(first.local.features[:4]))


def _is_faster(members: Sequence[Member], device: torch.device) -> bool:
    """Measure both ways on copies of some members and a few batches."""
    tried = [_tried(member) for member in members[:TRIED_CLIENTS]]
    alone = _seconds(tried[:1], _one_by_one, device)
    together = _seconds(tried, train_together, device) / len(tried)
    text = "Cohorts of up to %d clients: a step of a client takes %.0f us of CPU time, %.0f us alone: %s"
    worth = alone > WORTH * together
    chosen = "they are trained side by side" if worth else "they are trained one after the other"
    logger.info(text, len(members), 1e6 * together, 1e6 * alone, chosen)
    return worth


def _tried(member: Member) -> Member:
    """Return a copy of a member with a few batches."""
    count = TRIED_BATCHES * member.trainer.options.batch_size
    local = LocalData(member.local.features[:count], member.local.labels[:count])
    return replace(member, local=local)


def _one_by_one(members: Sequence[Member]) -> None:
    for own in members:
        own.trainer.run(own.model, own.local, own.batch_loss, own.rate, own.stream)


def _seconds(members: Sequence[Member], train: Callable[[Sequence[Member]], object], device: torch.device) -> float:
    """Return the seconds of one step of all members; what comes before the first step is not counted."""
    few, many = 1, 3

    def measured(epochs: int) -> float:
        copies = [_copy(member, epochs) for member in members]
        return timed(lambda: train(copies), device)

    measured(few)
    least = [min(measured(epochs) for _ in range(2)) for epochs in (few, many)]
    steps = (many - few) * len(next(members[0].trainer.orders(len(members[0].local), 0)))
    return max(least[1] - least[0], 0.0) / steps


def _copy(member: Member, epochs: int) -> Member:
    old = member.trainer
    trainer = Trainer(old.task, replace(old.options, epochs=epochs), old.device)
    return replace(
        member, model=copy.deepcopy(member.model), trainer=trainer, batch_loss=copy.deepcopy(member.batch_loss)
    )
