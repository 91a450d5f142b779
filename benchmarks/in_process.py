"""A federation in one process, without Ray and without packing messages: for experiments with many small runs.

Clients, attacks, strategy and evaluation are the product's own; a test holds that a run gives the same numbers as the
app does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.attacks import run_client
from client_app.engine import decided
from client_app.label_quality import class_losses
from client_app.local import answer_locally
from client_app.methods import RoundConfig, State
from client_app.trainer import learning_rate, pick_device
from server_app.evaluation import CentralEvaluation
from server_app.preprocessing import with_statistics
from server_app.registration import Client, Registration
from server_app.strategy import build_strategy
from strategies.validation import to_numpy, to_record
from tasks.base import ClientData, FittedTask
from tasks.client_data import client_dataset, load_task
from tasks.fresh_model import fresh_model
from tasks.protocol import Mode
from tasks.seeds import seed_everything
from tasks.settings import Settings
from tasks.weights import load_arrays, model_arrays


class LocalClients(Grid):
    """Clients 0, 1, 2, ... that train in this process when they are asked, one after the other."""

    def __init__(self, settings: Settings, evaluation: CentralEvaluation) -> None:
        for name in ("task_id", "run_id", "node_id"):
            setattr(TaskIdentity, name, 1)  # what Flower sets before it calls an app; messages carry it
        self._settings = settings
        self._evaluation = evaluation
        self.states: dict[int, State] = {}
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
        client = message.metadata.dst_node_id
        (record,) = message.content.array_records.values()
        self._sent = tuple(record)
        self._model = fresh_model(self._settings)
        load_arrays(self._model, to_numpy(record))
        data = client_dataset(self._settings, client).data
        answer = {"train": self._train, "query.profile": self._profile, "query.method": self._ask}
        content = answer[message.metadata.message_type](data, self._plan(message))
        content.metric_records["metrics"]["num-examples"] = len(data)
        return Message(content, reply_to=message)

    def _plan(self, message: Message) -> RoundConfig:
        settings, config = self._settings, dict(message.content.config_records.get("config", {}))
        return RoundConfig(
            self.server_round,
            learning_rate(settings.train, self.server_round, settings.num_server_rounds),
            (settings.seed, message.metadata.dst_node_id, self.server_round),
            str(config.get("role", "unknown")),
            config,
        )

    def _train(self, data: ClientData, round_config: RoundConfig) -> RecordDict:
        state, device = self.states.get(data.client), self._evaluation.device
        result = run_client(self._model, data, self._settings, round_config, state, device)
        self.states[data.client] = result.state
        arrays = model_arrays(self._model, self._sent)
        return RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord(dict(result.metrics))})

    def _ask(self, data: ClientData, round_config: RoundConfig) -> RecordDict:
        state, device = self.states.get(data.client), self._evaluation.device
        result = answer_locally(self._model, data, self._settings, round_config, state, device)
        self.states[data.client] = result.state
        return RecordDict({"metrics": MetricRecord(dict(result.metrics))})

    def _profile(self, data: ClientData, round_config: RoundConfig) -> RecordDict:
        size, device = self._settings.evaluate.batch_size, self._evaluation.device
        losses, counts = class_losses(self._model, self._evaluation.task, data, size, device)
        return RecordDict({"metrics": MetricRecord({"class-losses": losses.tolist(), "class-counts": counts.tolist()})})


class Federation:
    """A run in this process: its clients, strategy, and present model ``arrays``."""

    def __init__(self, settings: Settings) -> None:
        settings = asked(settings, range(settings.federation.num_clients))
        task, device = load_task(settings.task), pick_device(settings.train.device)
        train = decided(settings.train, task, fresh_model(settings), device, Mode.SIMULATION)
        self.settings = settings = replace(settings, train=train)
        self.evaluation = CentralEvaluation(settings)
        self.arrays = self.evaluation.initial_arrays()
        self.clients = LocalClients(settings, self.evaluation)
        examples = [len(client_dataset(settings, client).data) for client in self.clients.get_node_ids()]
        registration = Registration(tuple(Client(client, client, count) for client, count in enumerate(examples)))
        self.strategy = build_strategy(settings, registration, self.evaluation.buffers(), mode=Mode.SIMULATION)

    def rounds(self, first_measured: int = 1) -> Iterator[dict[str, float]]:
        """Play all rounds and yield the line of each; from ``first_measured`` on it has the measures of the test data.

        Rounds with too few usable replies leave the model as it is.
        """
        for server_round in range(1, self.settings.num_server_rounds + 1):
            seed_everything(self.settings.seed, "round", server_round)
            self.clients.server_round = server_round
            frozen = self.evaluation.frozen()
            sent = to_record({name: array for name, array in self.arrays.items() if name not in frozen})
            messages = self.strategy.configure_train(server_round, sent, ConfigRecord(), self.clients)
            combined, _ = self.strategy.aggregate_train(server_round, self.clients.send_and_receive(messages))
            self.arrays = self.arrays | ({} if combined is None else to_numpy(combined))
            measures = self.evaluation.measure(self.arrays) if server_round >= first_measured else {}
            yield {"round": server_round, "quarantined": len(self.strategy.report.quarantined), **measures}


def asked(settings: Settings, clients: Iterable[int]) -> Settings:
    """Return the settings with the statistics of these clients' examples, if the task must know some."""
    task = load_task(settings.task)
    if not isinstance(task, FittedTask) or task.statistics:
        return settings
    data = {client: client_dataset(settings, client).data for client in clients}
    summaries = {client: task.read_summary(task.summary(own.ids), len(own)) for client, own in data.items()}
    return with_statistics(settings, task.merge(summaries).statistics)


def rounds(settings: Settings, first_measured: int = 1) -> Iterator[dict[str, float]]:
    """Play a run; see :meth:`Federation.rounds`."""
    return Federation(settings).rounds(first_measured)
