"""A federation in one process, without Ray and without packing messages: for experiments with many small runs.

Clients, attacks, strategy and evaluation are the product's own; a test holds that a run gives the same numbers as the
app does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.acceleration import decided
from client_app.cohorts.choice import Job, cohort_size, run_clients
from client_app.local import answer_locally
from client_app.loss_profile import loss_profile
from client_app.methods import FitResult, RoundConfig, State
from client_app.trainer import learning_rate, pick_device
from server_app.attack_rule import RuleInUse
from server_app.evaluation import CentralEvaluation
from server_app.preprocessing import with_statistics
from server_app.registration import Client, Registration
from server_app.strategy import build_strategy
from strategies.model_average import moved_average
from strategies.validation import to_numpy, to_record
from tasks.base import FittedTask
from tasks.client_data import client_dataset, load_task
from tasks.fresh_model import fresh_model
from tasks.protocol import WANT_PROFILE, Arrays, Mode
from tasks.seeds import seed_everything
from tasks.settings import Settings
from tasks.weights import load_arrays, model_arrays


class LocalClients(Grid):
    """Clients 0, 1, 2, ... that train in this process when they are asked, one after the other or in cohorts."""

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
        waiting, replies = list(messages), list[Message]()
        size = cohort_size(self._settings, fresh_model(self._settings))
        for first in range(0, len(waiting), size):
            part = waiting[first : first + size]
            if part[0].metadata.message_type == "train":
                replies += self._train(part)
            else:
                replies += map(self._answer, part)
        return replies

    def _answer(self, message: Message) -> Message:
        job = self._job(message)
        answer = {"query.profile": self._profile, "query.method": self._ask}
        return _reply(message, answer[message.metadata.message_type](job), len(job.data))

    def _job(self, message: Message) -> Job:
        client = message.metadata.dst_node_id
        (record,) = message.content.array_records.values()
        model = fresh_model(self._settings)
        load_arrays(model, to_numpy(record))
        data = client_dataset(self._settings, client).data
        return Job(model, data, self._plan(message), self.states.get(client))

    def _plan(self, message: Message) -> RoundConfig:
        settings, config = self._settings, dict(message.content.config_records.get("config", {}))
        return RoundConfig(
            self.server_round,
            learning_rate(settings.train, self.server_round, settings.num_server_rounds),
            (settings.seed, message.metadata.dst_node_id, self.server_round),
            str(config.get("role", "unknown")),
            config,
        )

    def _train(self, messages: Sequence[Message]) -> list[Message]:
        """Return the replies of clients that are trained side by side where the settings say so."""
        jobs = [self._job(message) for message in messages]
        results = run_clients(jobs, self._settings, self._evaluation.device, RuleInUse)
        return [self._trained(*found) for found in zip(messages, jobs, results, strict=True)]

    def _trained(self, message: Message, job: Job, result: FitResult) -> Message:
        self.states[job.data.client] = result.state
        (record,) = message.content.array_records.values()
        arrays, metrics = to_record(model_arrays(job.model, tuple(record))), MetricRecord(dict(result.metrics))
        if job.round_config.config.get(WANT_PROFILE):
            metrics.update(self._profile(self._job(message)).metric_records["metrics"])
        return _reply(message, RecordDict({"arrays": arrays, "metrics": metrics}), len(job.data))

    def _ask(self, job: Job) -> RecordDict:
        device = self._evaluation.device
        result = answer_locally(job.model, job.data, self._settings, job.round_config, job.state, device)
        self.states[job.data.client] = result.state
        return RecordDict({"metrics": MetricRecord(dict(result.metrics))})

    def _profile(self, job: Job) -> RecordDict:
        size, device = self._settings.evaluate.batch_size, self._evaluation.device
        found = loss_profile(job.model, self._evaluation.task, job.data, size, device, job.round_config.config)
        return RecordDict({"metrics": MetricRecord(found)})


def _reply(message: Message, content: RecordDict, examples: int) -> Message:
    content.metric_records["metrics"]["num-examples"] = examples
    return Message(content, reply_to=message)


class Federation:
    """A run in this process: its clients, strategy and model ``arrays``, an average; clients train ``newest``."""

    def __init__(self, settings: Settings) -> None:
        settings = asked(settings, range(settings.federation.num_clients))
        task, device = load_task(settings.task), pick_device(settings.train.device)
        train = decided(settings.train, task, fresh_model(settings), device, Mode.SIMULATION)
        self.settings = settings = replace(settings, train=train)
        self.evaluation = CentralEvaluation(settings)
        self.arrays = self.newest = self.evaluation.initial_arrays()
        self.clients = LocalClients(settings, self.evaluation)
        self._averaged = 0
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
            sent = to_record({name: array for name, array in self.newest.items() if name not in frozen})
            messages = self.strategy.configure_train(server_round, sent, ConfigRecord(), self.clients)
            combined, _ = self.strategy.aggregate_train(server_round, self.clients.send_and_receive(messages))
            if combined is not None:
                self._take(to_numpy(combined))
            measures = self.evaluation.measure(self.arrays) if server_round >= first_measured else {}
            yield {"round": server_round, "quarantined": len(self.strategy.report.quarantined), **measures}

    def _take(self, arrays: Arrays) -> None:
        """Take what a round has made, as :meth:`server_app.state.RunState.take` does."""
        self.newest, share = self.newest | arrays, self.settings.strategy.ema
        self._averaged += 1
        self.arrays = self.arrays | moved_average(self.arrays, arrays, share, self._averaged)


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
