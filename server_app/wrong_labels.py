"""Which labels a run makes wrong on purpose, in one line; with their share once the clients have said it.

Somebody who rehearses with data of their own must not take simulated label noise for a property of that data.
"""

import numpy as np

from client_app.attacks import DataAttack, configured_attack
from server_app.registration import Registration
from server_app.report.text import percent
from tasks.client_data import federated_noise, load_task
from tasks.noise import uses_rates
from tasks.noise.clients import NO_NOISE
from tasks.protocol import Mode
from tasks.settings import AttackSettings, Settings

NONE_WRONG = "No labels are made wrong on purpose."


def wrong_labels_line(settings: Settings, mode: Mode, registration: Registration | None = None) -> str:
    """Return the line; ``registration`` adds which share of the training labels is wrong, where clients know it.

    >>> wrong_labels_line(Settings(), Mode.SIMULATION)
    "Labels made wrong on purpose: by the noise 'symmetric' at rates 0 to 0.85; test labels stay as they are."

    Raises
    ------
    ValueError
        If the noise or the noise-rate distribution does not fit.
    """
    noise, hostile = _noise(settings, mode), _hostile(settings.attack)
    if not noise:
        return f"No labels are made wrong on purpose, except that {hostile}." if hostile else NONE_WRONG
    share = _share(registration) if registration is not None else None
    amount = f"about {percent(share, 0)} of the training labels, " if share is not None else ""
    besides = f"; {hostile}" if hostile else ""
    return f"Labels made wrong on purpose: {amount}{noise}{besides}; test labels stay as they are."


def _noise(settings: Settings, mode: Mode) -> str:
    """Return by which noise labels become wrong, and at which rates; empty if by none."""
    if mode is Mode.DEPLOYMENT and load_task(settings.task).brings_own_data:
        return ""
    noise = federated_noise(settings)
    if noise.noise == NO_NOISE:
        return ""
    if not uses_rates(noise.noise):
        return f"by the noise {noise.noise!r}"
    low, high = noise.rates().min(), noise.rates().max()
    rates = f"rate {low:.3g}" if low == high else f"rates {low:.3g} to {high:.3g}"
    return f"by the noise {noise.noise!r} at {rates}" if high > 0 else ""


def _hostile(attack: AttackSettings) -> str:
    """Return that hostile clients change their data; empty if there are none that do."""
    if not isinstance(configured_attack(attack), DataAttack):
        return ""
    return f"hostile clients change their own data (attack {attack.name!r})"


def _share(registration: Registration) -> float | None:
    """Return the share of wrong labels among all examples, or None if a client does not say."""
    known = [(entry.noise_rate, entry.examples) for entry in registration.clients if entry.noise_rate is not None]
    if len(known) < len(registration.clients):
        return None
    rates, examples = zip(*known, strict=True)
    return float(np.average(rates, weights=examples))
