"""Plug-ins of the integration tests: a strategy that knows the noisy clients, and a method that answers questions."""

from collections.abc import Collection, Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import nn

from client_app.methods import FitResult, RoundConfig, State, TrainContext
from strategies.aggregators.weighted import Mean
from strategies.robust import RobustStrategy
from tests.integration.counting import Counting


class FixedRoles(RobustStrategy):
    """After ``warmup`` rounds the clients from number ``first_noisy`` on are called noisy, the others clean."""

    def __init__(
        self, seed: int = 0, buffers: Collection[str] = (), warmup: int = 1, first_noisy: int = 2, ask: bool = False
    ) -> None:
        super().__init__(Mean(), seed, buffers=buffers)
        self.warmup, self.first_noisy, self.ask = warmup, first_noisy, ask

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages if server_round > self.warmup else []:
            role = "noisy" if message.metadata.dst_node_id >= self.first_noisy else "clean"
            sent = {"role": role, "rounds-since-detection": server_round - self.warmup - 1}
            message.content = RecordDict({"arrays": arrays, "config": ConfigRecord({**config, **sent})})
        if self.ask:
            content = RecordDict({"arrays": arrays, "config": ConfigRecord({"question": "add"})})
            asked = [Message(content, client, "query.method") for client in grid.get_node_ids()]
            replies = list(grid.send_and_receive(asked, timeout=5.0))
            assert [dict(reply.content["metrics"])["rounds"] for reply in replies] == [10.0 * server_round] * len(asked)  # type: ignore[call-overload]
        return messages


class Answering(Counting):
    """Counts rounds as Counting does; a question in round r sets the count to 10 r."""

    def answer(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        assert round_config.config["question"] == "add"
        rounds = 10 * round_config.server_round
        return FitResult({"rounds": float(rounds)}, {"rounds": np.full(1, rounds)})
