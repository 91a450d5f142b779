"""Clipping and noise at the client, by Flower's own mods; the run configuration says which one."""

from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import Mod

from client_app.session import Session
from tasks.envelope import RECORD
from tasks.mode import Mode
from tasks.records import view_of
from tasks.seeds import seed_noise
from tasks.settings import PrivacySettings


def private(session: Session, train: Callable[[Session], Message]) -> Message:
    """Train, and let Flower's mod of the configured mode clip the reply, and with local privacy add noise to it.

    Raises
    ------
    ValueError
        If training left the model exactly as it came: Flower divides by the norm of the update.
    """
    message, settings, envelope = session.message, session.settings, session.envelope
    mod = mod_of(settings.privacy)
    if mod is None:
        return train(session)
    record = message.content[RECORD]

    def call_next(inner: Message, context: Context) -> Message:
        inner.content[RECORD] = record
        reply = train(session)
        if reply.has_content():
            _check_moved(inner, reply)
        predictable = session.mode is Mode.SIMULATION
        seed_noise(predictable, settings.seed, "privacy", envelope.client, envelope.server_round)
        return reply

    del message.content[RECORD]  # the mods take the one record of settings that they find for their own
    return mod(message, session.context, call_next)


def mod_of(settings: PrivacySettings) -> Mod | None:
    """Return Flower's mod for a mode; None where the client has nothing to do.

    Local privacy: any two updates of norm at most C are at most 2 C apart, so the noise is made for that distance.
    """
    if settings.mode == "client-fixed":
        return fixedclipping_mod
    if settings.mode == "client-adaptive":
        return adaptiveclipping_mod
    if settings.mode == "local":
        return LocalDpMod(settings.clipping_norm, 2 * settings.clipping_norm, settings.epsilon, settings.delta)
    return None


def _check_moved(sent: Message, reply: Message) -> None:
    def values(message: Message) -> ArrayRecord:
        return next(iter(message.content.array_records.values()))

    before, after = values(sent), values(reply)
    if all(np.array_equal(view_of(before[name]), view_of(after[name])) for name in before):
        raise ValueError("training left the model exactly as it came, and an update of norm 0 cannot be clipped")
