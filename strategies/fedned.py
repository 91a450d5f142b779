"""FedNed (Lu, Chen, Zhang, Zhang, Han, Cheung, Wang, AAAI 2024), the server's part: noisy clients as bad teachers.

"Federated Learning with Extremely Noisy Clients via Negative Distillation", https://arxiv.org/abs/2312.12703. A client
nearly all of whose labels are wrong had better not be averaged. But what its model finds likely is wrong, and that can
be learned from too.
"""

from collections.abc import Iterable
from logging import INFO
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.aggregators import Aggregator
from strategies.base import STRATEGIES
from strategies.negative_distillation import distil, uncertainty
from strategies.parameters import as_sent
from strategies.robust import KeptArrays, RobustStrategy
from strategies.validation import RoundReport, Update
from tasks.arguments import check_above_zero, check_at_least
from tasks.extra_arrays import base_name, further_networks, model_part, network_of
from tasks.issues import ERROR, WARNING, Issue, RunContext
from tasks.protocol import Arrays
from tasks.public_examples import PublicExamples
from tasks.seeds import rng, torch_seed
from tasks.validation_split import SERVER

if TYPE_CHECKING:
    from torch import Tensor


@STRATEGIES.register("fedned", "Lu et al., AAAI 2024", "https://arxiv.org/abs/2312.12703")
class FedNed(RobustStrategy):
    """Averages the models of clients that are sure, and teaches the result the contrary of what the others say.

    Meant for the client method fedned, the loss ce and the aggregator mean. All other arguments are those of
    :class:`RobustStrategy`. After ``warmup_rounds`` rounds of plain averaging, in each round:

    1. u of a client is how unsure its model is about examples at the server, without labels: the mean entropy of its
       mean prediction under dropout of features. Clients with u above ``threshold`` x the mean u of the round are
       extremely noisy, and from then on they are asked for two models (role noisy): one trained on labels that the
       global model gives, by which they are judged, and one trained on their given labels.
    2. The models of all other clients are aggregated.
    3. The result learns for ``steps`` steps to answer as the bad teachers do not: it minimises
       KL(softmax(-t / T) || softmax(z / T)), with z its own logits and t those of a bad teacher, mean over teachers.
       Bad teachers are models trained on given labels: of clients that turn out noisy now, and the second ones of those
       that have before.

    The examples are the inputs, not the labels, that ``evaluate.validation`` holds out at the server, never test data;
    the paper takes another data set. Without them the run is refused.

    **Reconstructed** where the authors' program cannot be followed. Its optimizer holds the weights of another network,
    so its distillation changes nothing, and it says nothing of how long the global model should learn at which rate:
    ``rate`` is ours. It takes softmax(1 / t) / T for a bad teacher, which is no distribution and jumps where a logit
    is 0; here softmax(-t / T). Both of a noisy client's models are one object there, and pseudo-labels are those of the
    client's own model. It compares u / sum u with 0.12 where 10 clients train, which is 1.2 times the mean.

    Example: ``winnow run method.name=fedned strategy.name=fedned loss.name=ce strategy.aggregator=mean``

    Cost: two models each way. The server makes ``passes`` predictions of ``batch_size`` examples for each client,
    one of all n for each bad teacher, and ``steps`` training steps.

    Parameters
    ----------
    public_examples
        The server's examples; set by the run.
    warmup_rounds
        Published 10 of 100.
    threshold
        At least 1, so that somebody is left.
    passes, dropout
        Predictions in a mean, and the share of features that is left out of each.
    batch_size
        Examples that a client is judged by, and of a distillation step.
    temperature
        T, of the answers from which the result learns to keep away; published 2.
    steps, rate
        Of distillation, by Adam; 0 steps only leave noisy clients out.
    """

    one_label_each: ClassVar[bool] = True
    gives_roles: ClassVar[bool] = True
    uses_bad_teachers: ClassVar[bool] = True

    def __init__(
        self,
        aggregator: Aggregator,
        *,
        public_examples: PublicExamples | None = None,
        warmup_rounds: int = 10,
        threshold: float = 1.2,
        passes: int = 10,
        dropout: float = 0.3,
        batch_size: int = 128,
        temperature: float = 2.0,
        steps: int = 100,
        rate: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(aggregator, **options)
        self.public = public_examples
        self.warmup_rounds, self.threshold, self.passes, self.dropout = warmup_rounds, threshold, passes, dropout
        self.batch_size, self.temperature, self.steps, self.rate = batch_size, temperature, steps, rate
        check_at_least(self, 0, "warmup_rounds", "steps")
        check_at_least(self, 1, "threshold", "passes", "batch_size")
        check_above_zero(self, "temperature", "rate")
        if not 0 < dropout < 1:
            raise ValueError(f"dropout = {dropout}: must be above 0 and below 1")
        self.judged: dict[int, bool] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the clients of this round, and tell each its role."""
        self.roles = {client: "noisy" if noisy else "clean" for client, noisy in self.judged.items()}
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            role = self.roles.get(message.metadata.dst_node_id, "unknown")
            message.content = RecordDict({"arrays": arrays, "config": ConfigRecord({**config, "role": role})})
        return messages

    def aggregate_updates(
        self, server_round: int, updates: list[Update[KeptArrays]], report: RoundReport
    ) -> tuple[Arrays | None, MetricRecord | None]:
        """Judge the clients, combine the updates of those that are not noisy now, and distil; see the class."""
        if server_round <= self.warmup_rounds:
            return super().aggregate_updates(server_round, updates, report)
        bad = self.extremely_noisy(server_round, updates)
        teachers = [logits for update in updates if (logits := self._teacher(update, bad)) is not None]
        for update in updates:
            self.judged[update.client] = self.judged.get(update.client, False) or update.client in bad
        good = [update for update in updates if update.client not in bad]
        arrays, metrics = super().aggregate_updates(server_round, good, report)
        if arrays is None:
            return None, None
        model = self._distilled(server_round, model_part(arrays), teachers)
        if not all(np.isfinite(array).all() for array in model.values()):
            report.skipped = "the distilled model has values that are not finite"
            return None, None
        further = {name: model[base_name(name)].copy() for name in arrays if network_of(name) > 1}
        return {**arrays, **model, **further}, metrics

    def finish_round(self, report: RoundReport) -> None:
        """Put the roles on record under which the clients have trained."""
        named = report.examples.keys() | report.quarantined.keys()
        report.roles = {client: self.roles.get(client, "unknown") for client in sorted(named)}

    def extremely_noisy(self, server_round: int, updates: list[Update[KeptArrays]]) -> set[int]:
        """Return the clients of a round whose models are much less sure than usual."""
        import torch

        public = self._public
        count = len(public.features)
        draws = rng(self.seed, "fedned-judge", server_round)
        places = torch.from_numpy(draws.choice(count, min(self.batch_size, count), replace=False))
        inputs, seed = public.inputs(places), torch_seed(self.seed, "fedned-dropout", server_round)
        found = {}
        for update in updates:  # all are judged under the same masks
            model, masks = public.model(model_part(self._arrays(update))), torch.Generator().manual_seed(seed)
            found[update.client] = uncertainty(model, inputs, self.passes, self.dropout, masks)
        bound = self.threshold * float(np.mean([*found.values()]))
        bad = {client for client, value in found.items() if value > bound}
        names = ", ".join(str(client) for client in sorted(bad)) or "none"
        log(INFO, "Extremely noisy among %d clients: %s (entropy above %.3f)", len(found), names, bound)
        return bad

    def _teacher(self, update: Update[KeptArrays], bad: set[int]) -> "Tensor | None":
        """Return the logits (n, K) of a client's model of wrong labels for all public examples; None without one."""
        from tasks.base import predict

        asked_for_two = self.roles.get(update.client) == "noisy"
        if not self.steps or not (asked_for_two or update.client in bad):
            return None
        arrays = self._arrays(update)
        own = further_networks(arrays)[2] if asked_for_two else model_part(arrays)
        public = self._public
        return predict(public.model(own), public.task, public.features, self.batch_size, public.device)

    def _distilled(self, server_round: int, model: Arrays, teachers: "list[Tensor]") -> Arrays:
        """Return the aggregated model's arrays after distillation; as they are without a teacher."""
        from tasks.weights import model_arrays

        if not teachers:
            return model
        public = self._public
        student = public.model(model)
        distil(
            student,
            teachers,
            public.inputs,
            steps=self.steps,
            rate=self.rate,
            batch_size=self.batch_size,
            temperature=self.temperature,
            draws=rng(self.seed, "fedned-distil", server_round),
        )
        return as_sent(model_arrays(student, model), model)

    def _arrays(self, update: Update[KeptArrays]) -> Arrays:
        """Return all arrays that a client has sent."""
        found = {**self._parameters.after(update.kept.step), **update.kept.buffers}
        return as_sent(found, self._parameters.model)

    @property
    def _public(self) -> PublicExamples:
        if self.public is None:
            raise ValueError("the strategy fedned needs the run's public examples")
        return self.public

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that there are no examples at the server, no bad teachers, or no round after the warm-up."""
        settings, found = context.settings, super().issues(context)
        if not context.method.sends_bad_teachers:
            text = f"strategy fedned needs the two models that the method {settings.method.name} does not send"
            found.append(Issue(ERROR, "method", text, "set method.name = 'fedned'"))
        if context.validation != SERVER:
            text = "strategy fedned judges and distils on examples that the server holds out, and it holds none out"
            remedy = "set evaluate.validation = 0.1 and evaluate.validation-at = 'server', or choose another strategy"
            found.append(Issue(ERROR, "evaluate.validation", text, remedy))
        if self.warmup_rounds >= settings.num_server_rounds:
            text = (
                f"strategy.args: warmup_rounds = {self.warmup_rounds}, but the run has {settings.num_server_rounds} "
                "rounds: it ends before a client is called noisy"
            )
            found.append(Issue(WARNING, "strategy.args", text))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state and how the clients were judged."""
        return {**super().state_dict(), "judged": dict(self.judged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.judged = dict(state["judged"])
