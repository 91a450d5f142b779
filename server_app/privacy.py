"""Differential privacy of a run: which settings keep the guarantee, and what has been spent.

The privacy unit is a client with all of its data. Sampling clients adds nothing to the guarantee here: who is asked
follows from the seed, which is no secret.
"""

import math

from flwr.serverapp import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)
from torch import nn

from tasks.issues import ERROR, WARNING, Issue, listed
from tasks.settings import PrivacySettings, Settings
from tasks.weights import buffer_names, frozen_names, weights
from tasks.wire import FULL

INSTALL = "pip install 'flwr[dp]'"


def is_central(privacy: PrivacySettings) -> bool:
    """Tell whether the server adds the noise."""
    return privacy.mode not in ("none", "local")


def privacy_issues(settings: Settings) -> list[Issue]:
    """Return the settings under which the noise would not fit what it is added to, and what is odd but allowed."""
    privacy = settings.privacy
    if is_central(privacy):
        idle = "privacy.noise-multiplier = 0: updates are clipped, but nothing is private"
        silent = [Issue(WARNING, "privacy.noise-multiplier", idle)] if privacy.noise_multiplier == 0 else []
        return _central_issues(settings) + silent
    if privacy.mode == "local" and privacy.epsilon > 1:
        text = (
            f"privacy.epsilon = {privacy.epsilon:g}: Flower's formula for the noise holds up to 1; "
            "the accounted epsilon is the one that counts"
        )
        return [Issue(WARNING, "privacy.epsilon", text)]
    return []


def _central_issues(settings: Settings) -> list[Issue]:
    privacy, strategy, wire = settings.privacy, settings.strategy, settings.federation.wire
    mode = f"privacy.mode = {privacy.mode!r}"
    mean = f"{mode}: the noise is made for a mean of equal weights, so set"
    problems = {
        f"{mean} strategy.name = 'robust'": strategy.name != "robust",
        f"{mean} strategy.aggregator = 'mean'": strategy.aggregator != "mean",
        f"{mean} strategy.weighting = 'uniform'": strategy.weighting != "uniform",
        f"{mean} strategy.pre-aggregators = ''": bool(strategy.pre_aggregators.strip()),
        f"{mode}: Flower adds the noise after the server optimizer, which it does not fit any more, so set "
        "strategy.server-optimizer = 'none'": strategy.server_optimizer != "none",
        f"{mode}: a resumed run must know every model that was released, so set run.checkpoint-every = 1": (
            settings.run.checkpoint_every != 1
        ),
        f"{mode}: rounding to {wire} may lengthen an update that its client has clipped, and the noise is made for the "
        "clipped length, so set federation.wire = 'float32' or let the server clip": (
            privacy.mode.startswith("client-") and wire != FULL
        ),
    }
    return [Issue(ERROR, "privacy.mode", problem) for problem, applies in problems.items() if applies]


def model_issues(settings: Settings, model: nn.Module) -> list[Issue]:
    """Return what of a model Flower's clipping and noise would miss: all but floating-point parameters with an axis."""
    buffers, frozen = buffer_names(model), frozen_names(model)
    missed = [
        name
        for name, tensor in weights(model).items()
        if name not in frozen and (name in buffers or not tensor.is_floating_point() or not tensor.ndim)
    ]
    if settings.privacy.mode == "none" or not missed:
        return []
    text = (
        f"model: privacy.mode = {settings.privacy.mode!r}: clipping and noise cover parameters only, and would miss "
        f"{listed(missed)}"
    )
    remedy = "use a model without running statistics (a ResNet: model.args = 'norm = \"group\"')"
    return [Issue(ERROR, "model", text, remedy)]


def noise_multiplier(privacy: PrivacySettings) -> float:
    """Return the noise in sensitivities; local: sqrt(2 ln(1.25 / delta)) / epsilon (Dwork and Roth, 2014)."""
    if privacy.mode == "local":
        return math.sqrt(2 * math.log(1.25 / privacy.delta)) / privacy.epsilon
    return privacy.noise_multiplier


def spent_epsilon(privacy: PrivacySettings, releases: int) -> float | None:
    """Return the epsilon at ``privacy.delta`` after so many releases; None without noise.

    By Flower's accountant: Gaussian mechanisms composed by their Renyi divergences (Mironov, CSF 2017).

    Raises
    ------
    ImportError
        If the accountant is not installed.
    """
    config = PrivacyConfig(privacy.delta, 1, NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION)
    accountant, noise = RdpAccountant(config), noise_multiplier(privacy)
    if not noise:
        return None
    if releases:
        accountant.compose(GaussianPrivacyEvent(noise, 1, 1), releases)
    return accountant.get_privacy_spent().epsilon
