"""A federation in one process, without Ray and without packing messages: for experiments with many small runs.

Clients, attacks, strategy and evaluation are the product's own; a test holds that a run gives the same numbers as the
app does.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.attacks import play_client
from client_app.methods import Plan, State
from client_app.trainer import learning_rate
from server_app.evaluation import CentralEvaluation
from server_app.roster import Client, Roster
from server_app.strategy import build_strategy
from strategies.updates import to_numpy, to_record
from tasks.seeds import seed_everything
from tasks.settings import Settings
from tasks.shares import client_share


class LocalClients(Grid):
    """Clients 0, 1, 2, ... that train in this process when they are asked, one after the other."""

    def __init__(self, settings: Settings, evaluation: CentralEvaluation) -> None:
        for name in ("task_id", "run_id", "node_id"):
            setattr(TaskIdentity, name, 1)  # what Flower sets before it calls an app; messages carry it
        self._settings = settings
        self._evaluation = evaluation
        self._model = evaluation.task.build_model(settings.model.name, settings.model.args)
        self._states: dict[int, State] = {}
        self.server_round = 0

    def set_run(self, run: object) -> None:
        """Nothing to do: there is one run."""

    @property
    def run(self) -> Any:
        """There is no run to describe."""
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Create a message."""
        return Message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return the client ids."""
        return range(self._settings.federation.num_clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: answers come at once, see :meth:`send_and_receive`."""
        raise NotImplementedError("clients in this process answer at once: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: answers come at once, see :meth:`send_and_receive`."""
        raise NotImplementedError("clients in this process answer at once: use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Return every client's reply."""
        return [self._answer(message) for message in messages]

    def _answer(self, message: Message) -> Message:
        settings, client = self._settings, message.metadata.dst_node_id
        (record,) = message.content.array_records.values()
        self._model.load_state_dict({name: torch.from_numpy(array) for name, array in to_numpy(record).items()})
        config = dict(message.content.config_records.get("config", {}))
        plan = Plan(
            self.server_round,
            learning_rate(settings.train, self.server_round, settings.num_server_rounds),
            (settings.seed, client, self.server_round),
            str(config.get("role", "unknown")),
            config,
        )
        data, state = client_share(settings, client).data, self._states.get(client)
        result = play_client(self._model, data, settings, plan, state, self._evaluation.device)
        if result.state:
            self._states[client] = result.state
        arrays = {name: tensor.cpu().numpy() for name, tensor in self._model.state_dict().items()}
        metrics = MetricRecord({"num-examples": len(data), **result.metrics})
        return Message(RecordDict({"arrays": to_record(arrays), "metrics": metrics}), reply_to=message)


def rounds(settings: Settings, first_measured: int = 1) -> Iterator[dict[str, float]]:
    """Play a run and yield the line of each round: quarantined replies and, from ``first_measured`` on, the measures.

    Rounds with too few usable replies leave the model as it is.
    """
    evaluation = CentralEvaluation(settings)
    arrays, clients = evaluation.initial_arrays(), LocalClients(settings, evaluation)
    examples = [len(client_share(settings, client).data) for client in clients.get_node_ids()]
    roster = Roster(tuple(Client(client, client, count) for client, count in enumerate(examples)))
    strategy = build_strategy(settings, roster, evaluation.buffers(), simulated=True)
    for server_round in range(1, settings.num_server_rounds + 1):
        seed_everything(settings.seed, "round", server_round)
        clients.server_round = server_round
        messages = strategy.configure_train(server_round, to_record(arrays), ConfigRecord(), clients)
        combined, _ = strategy.aggregate_train(server_round, clients.send_and_receive(messages))
        arrays = arrays if combined is None else to_numpy(combined)
        measures = evaluation.measure(arrays) if server_round >= first_measured else {}
        yield {"round": server_round, "quarantined": len(strategy.report.quarantined), **measures}
