"""Simulation of hostile clients: which they are, and one client's round among them.

Who is hostile is a function of the settings alone, the same at the server and at every client.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from client_app.attacks.base import ATTACKS, Attack, AttackContext, BuildRule, FederationFacts, LocalUpdate, Rule
from client_app.local import train_locally
from client_app.methods import FitResult, RoundConfig, State
from tasks.base import ClientData
from tasks.client_data import client_dataset, load_task
from tasks.extra_arrays import base_name, of_network
from tasks.fresh_model import fresh_model
from tasks.images import ImageTask
from tasks.issues import ERROR, WARNING, Issue, RunContext
from tasks.protocol import Mode
from tasks.seeds import rng
from tasks.settings import AttackSettings, Settings
from tasks.weights import frozen_names

NO_ATTACK = "none"


def attackers(settings: Settings) -> frozenset[int]:
    """Return the ids of the hostile clients: round(share x clients) of them, drawn; none without an attack."""
    attack, clients = settings.attack, settings.federation.num_clients
    if attack.name == NO_ATTACK:
        return frozenset()
    drawn = rng(settings.seed, "attackers").choice(clients, round(attack.share * clients), replace=False)
    return frozenset(drawn.tolist())


def configured_attack(attack: AttackSettings) -> Attack | None:
    """Build the configured attack; None if there is none.

    Raises
    ------
    PluginError
        If the attack is unknown, or an argument does not fit.
    """
    return None if attack.name == NO_ATTACK else ATTACKS.build(attack.name, attack.args)


def federation_facts(settings: Settings) -> FederationFacts:
    """Return what the attackers know about the federation."""
    task = load_task(settings.task)
    brightest = task.brightest if isinstance(task, ImageTask) else None
    return FederationFacts(settings.federation.num_clients, len(attackers(settings)), task.num_classes, brightest)


def attack_issues(attack: Attack, context: RunContext) -> list[Issue]:
    """Return why an attack cannot be made in this federation, and what is odd about it."""
    settings, choice = context.settings, context.settings.attack
    known = federation_facts(settings)
    if not known.num_hostile:
        text = (
            f"attack: attack.share = {choice.share}: none of {known.num_clients} clients would be hostile; "
            f"for one of them take {1 / known.num_clients:.4g}, or set attack.name = none"
        )
        return [Issue(ERROR, "attack.share", text)]
    found = attack.issues(context)
    if problem := attack.problem(known):
        found.append(Issue(ERROR, "attack", f"attack: attack {choice.name!r}: {problem}"))
    if known.num_hostile == known.num_clients:
        text = f"attack.share = {choice.share}: all {known.num_clients} clients are hostile"
        found.append(Issue(WARNING, "attack.share", text))
    if choice.start_round > settings.num_server_rounds:
        text = f"attack.start-round = {choice.start_round}: the run ends before the attack begins"
        found.append(Issue(WARNING, "attack.start-round", text))
    return found


def refuse_attack(settings: Settings, mode: Mode, error: type[Exception]) -> None:
    """Refuse to let real nodes be hostile: attacks are for experiments, in a simulation.

    Raises
    ------
    Exception
        An ``error``, if an attack is configured and the clients are not simulated.
    """
    if settings.attack.name != NO_ATTACK and mode is Mode.DEPLOYMENT:
        raise error(
            f"attack.name = {settings.attack.name!r}: attacks are made in a simulation only, and these are real "
            "nodes; remove attack.* from the run configuration"
        )


def is_hostile(settings: Settings, round_config: RoundConfig) -> bool:
    """Tell whether the client of ``round_config.stream`` does something else than honest training in its round."""
    _, client, server_round = round_config.stream
    return server_round >= settings.attack.start_round and client in attackers(settings)


def run_client(
    model: nn.Module,
    data: ClientData,
    settings: Settings,
    round_config: RoundConfig,
    state: State | None,
    device: torch.device,
    build_rule: BuildRule | None = None,
) -> FitResult:
    """Train ``model`` in place as the client of ``round_config.stream`` does: honestly, or as the attack says.

    Raises
    ------
    ValueError
        If the attack knows the server's aggregator and nobody says how that is built.
    """
    attack = configured_attack(settings.attack)
    if attack is None or not is_hostile(settings, round_config):
        return train_locally(model, data, settings, round_config, state, device)
    hostile = attackers(settings)
    seed, client, server_round = round_config.stream
    trainer = AttackTrainer(model, settings, round_config, device)
    context = AttackContext(
        data,
        federation_facts(settings),
        rng(seed, "attack", client, server_round),
        train=lambda examples, effort: trainer.train(examples, effort, state),
        honest_updates=lambda: {one: trainer.honest(one, state if one == client else None) for one in sorted(hostile)},
        shared_draws=rng(seed, "collusion", server_round),
        once=lambda make: trainer.once(make, state),
        rule=_rule(settings, build_rule) if attack.knows_rule else None,
    )
    sent = attack.act(context)
    trainer.install(sent)
    return FitResult(sent.metrics, sent.state, dict(sent.arrays), round_config.networks)


def _rule(settings: Settings, build_rule: BuildRule | None) -> Rule:
    if build_rule is None:
        name = settings.attack.name
        raise ValueError(f"attack {name} searches against the server's aggregator: only a run's server can build that")
    return build_rule(settings, attackers(settings))


class HonestUpdates:
    """The honest updates of the round that this process last worked on, so that they are trained once.

    ``common`` is what all hostile clients made of them, in a list of one; empty = nothing yet.
    """

    def __init__(self) -> None:
        self._key = b""
        self._entries: dict[int, LocalUpdate] = {}
        self.common: list[Tensor] = []

    def entries(self, key: bytes) -> dict[int, LocalUpdate]:
        """Return what is known under ``key``; everything else is forgotten."""
        if key != self._key:
            self._key, self._entries, self.common = key, {}, []
        return self._entries


HONEST_UPDATES = HonestUpdates()


class AttackTrainer:
    """Trains from the received weights as often as an attack asks, and puts what it sends into the model."""

    def __init__(self, model: nn.Module, settings: Settings, round_config: RoundConfig, device: torch.device) -> None:
        self._networks = [network.to(device) for network in (model, *round_config.networks)]
        self._settings, self._round_config, self._device = settings, round_config, device
        self._received = [
            {name: tensor.clone() for name, tensor in network.state_dict().items()} for network in self._networks
        ]
        self._start = _vector(self._networks)

    def train(self, data: ClientData, effort: int, state: State | None) -> LocalUpdate:
        """Train on ``data`` for ``effort`` times the configured epochs, with the draws of the client that owns it."""
        model, *others = (self._fresh(received) for received in self._received)
        options = replace(self._settings.train, epochs=effort * self._settings.train.epochs)
        seed, _, server_round = self._round_config.stream
        stream = (seed, data.client, server_round)
        round_config = replace(self._round_config, stream=stream, networks=tuple(others))
        result = train_locally(model, data, replace(self._settings, train=options), round_config, state, self._device)
        networks = [model, *others]
        buffers = {name: buffer.clone() for name, buffer in _buffers(networks).items()}
        return LocalUpdate(_vector(networks) - self._start, buffers, result.metrics, result.state, result.arrays)

    def _fresh(self, received: dict[str, Tensor]) -> nn.Module:
        network = fresh_model(self._settings).to(self._device)
        network.load_state_dict(received)
        return network

    def honest(self, client: int, state: State | None) -> LocalUpdate:
        """Return what a client would send if it were honest; without a state it is kept until the next round."""
        data = client_dataset(self._settings, client).data
        if state:
            return self.train(data, 1, state)
        known = HONEST_UPDATES.entries(self._key())
        if client not in known:
            known[client] = self.train(data, 1, None)
        return known[client]

    def once(self, make: Callable[[], Tensor], state: State | None) -> Tensor:
        """Return what is made of the honest updates, once; anew for a client whose state decides its own update."""
        if state:
            return make()
        HONEST_UPDATES.entries(self._key())
        if not HONEST_UPDATES.common:
            HONEST_UPDATES.common.append(make())
        return HONEST_UPDATES.common[0]

    def install(self, sent: LocalUpdate) -> None:
        """Load the received parameters plus the update that is sent, and its buffers."""
        for network, received in zip(self._networks, self._received, strict=True):
            network.load_state_dict(received)
        with torch.no_grad():
            parameters = [parameter for network in self._networks for parameter in _floating(network)]
            moved = torch.split(self._start + sent.update.to(self._start), [p.numel() for p in parameters])
            for parameter, values in zip(parameters, moved, strict=True):
                parameter.copy_(values.view_as(parameter))
            for name, buffer in _buffers(self._networks).items():
                if base_name(name) in self._received[0]:  # no other is sent
                    buffer.copy_(sent.buffers[name])

    def _key(self) -> bytes:
        """Return a digest of all that decides the honest updates of a round."""
        round_config = replace(self._round_config, stream=())
        digest = hashlib.blake2b(repr((self._settings, round_config)).encode())
        for tensor in (tensor for received in self._received for tensor in received.values()):
            digest.update(tensor.cpu().numpy().tobytes())
        for array in (*round_config.arrays.values(), *round_config.given.values()):
            digest.update(array.tobytes())
        return digest.digest()


def _floating(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the floating-point parameters that travel."""
    some_frozen = bool(frozen_names(model))
    return (p for p in model.parameters() if p.is_floating_point() and (p.requires_grad or not some_frozen))


def _vector(networks: Sequence[nn.Module]) -> Tensor:
    """Return the floating-point parameters of networks that travel, as one vector (P,)."""
    return torch.cat([parameter.detach().flatten() for network in networks for parameter in _floating(network)])


def _buffers(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return the buffers of networks, those of further ones under the names under which they travel."""
    found = dict(networks[0].named_buffers())
    for number, network in enumerate(networks[1:], 2):
        found |= of_network(number, dict(network.named_buffers()))
    return found
