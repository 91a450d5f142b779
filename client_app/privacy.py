"""Clipping and noise at the client, by Flower's own mods; the run configuration says which one."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import ClientAppCallable, Mod

from client_app.simulation import present_mode
from tasks.config import parse
from tasks.envelope import RECORD, Envelope
from tasks.mode import Mode
from tasks.seeds import seed_noise
from tasks.settings import PrivacySettings


def private(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let Flower's mod of the configured mode clip the reply, and with local privacy add noise to it.

    Raises
    ------
    ValueError
        If training left the model exactly as it came: Flower divides by the norm of the update.
    """
    record = message.content[RECORD]
    envelope = Envelope.of(message.content.config_records[RECORD])
    settings = parse({**context.run_config, **envelope.changes()})
    mod = mod_of(settings.privacy)
    if mod is None:
        return call_next(message, context)

    def train(inner: Message, context: Context) -> Message:
        inner.content[RECORD] = record
        reply = call_next(inner, context)
        if reply.has_content():
            _check_moved(inner, reply)
        predictable = present_mode() is Mode.SIMULATION
        seed_noise(predictable, settings.seed, "privacy", envelope.client, envelope.server_round)
        return reply

    del message.content[RECORD]  # the mods take the one record of settings that they find for their own
    return mod(message, context, train)


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
    if all(np.array_equal(before[name].numpy(), after[name].numpy()) for name in before):
        raise ValueError("training left the model exactly as it came, and an update of norm 0 cannot be clipped")
