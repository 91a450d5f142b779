"""FedNed (Lu, Chen, Zhang, Zhang, Han, Cheung, Wang, AAAI 2024), the client's part: two models of a noisy client.

"Federated Learning with Extremely Noisy Clients via Negative Distillation", https://arxiv.org/abs/2312.12703. The
server's part, and what is reconstructed, is in :mod:`strategies.fedned`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import train
from client_app.methods.side_by_side import received_parameters
from client_app.trainer import GivenLabels, LocalData
from tasks.arguments import check_above_zero, check_shares
from tasks.issues import ERROR, Issue, RunContext
from tasks.plugins import is_own

LABELS, CLASSES = "pseudo_labels", "classes"
UNSURE = -1


@METHODS.register("fedned", "Lu et al., AAAI 2024", "https://arxiv.org/abs/2312.12703")
@dataclass(frozen=True)
class FedNed(ClientMethod):
    """Train on the given labels, and if the server calls the client noisy a second model on the global model's labels.

    Meant for the strategy fedned and the loss ce. A client of role noisy trains, both from the received weights, the
    model on those of its examples for which max softmax(z / ``temperature``) >= ``confidence``, with the class of the
    largest one as their label, where z are the received model's logits in evaluation mode; and a second network, the
    bad teacher, on all examples with their given labels. If the received model is sure of none, the model is sent
    back as it came. A client of any other role trains the model on the given labels and leaves the second one.

    The authors' program takes pseudo-labels of the model while it trains on them, and lets unsure examples count in the
    mean with a loss of 0; here they are left out. With the role clean or unknown it is plain local training.

    Example: ``winnow run method.name=fedned strategy.name=fedned loss.name=ce strategy.aggregator=mean``

    Cost: two models each way; a noisy client trains up to twice the configured epochs, and makes a pass of predictions.

    Parameters
    ----------
    confidence
        Published 0.95.
    temperature
        Published 2, by which 0.95 is asked of softened predictions.
    """

    one_label_each: ClassVar[bool] = True
    corrects_labels: ClassVar[bool] = True
    reads_role: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True  # the server leaves some of them out to see how sure a model is
    sends_bad_teachers: ClassVar[bool] = True
    networks: ClassVar[int] = 2
    confidence: float = 0.95
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_shares(self, "confidence")
        check_above_zero(self, "temperature")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the strategy does nothing with the second model, if so."""
        name, found = context.settings.strategy.name, super().issues(context)
        if not context.strategy.uses_bad_teachers and not is_own(name):
            text = f"method fedned sends bad teachers, with which the strategy {name} does nothing"
            found.append(Issue(ERROR, "strategy", text, "set strategy.name = 'fedned'"))
        return found

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train one or both networks in place; see :class:`ClientMethod`."""
        if round_config.role != "noisy":
            return FitResult(train(model, context, round_config, context.objective).metrics, state)
        teacher = round_config.networks[0]
        teacher.load_state_dict(model.state_dict())
        found = self._pseudo_labels(model, context)
        metrics = train(teacher, context, round_config, context.objective).metrics
        places = torch.nonzero(found != UNSURE)[:, 0]
        if len(places):
            labels = found[places]
            objective = context.objective_for(labels, any_class=True)
            batch_loss = GivenLabels(objective, received_parameters(model))
            local = LocalData(context.local.features[places], labels)
            context.trainer.run(model, local, batch_loss, round_config.learning_rate, round_config.stream)
        kept = {LABELS: found.cpu().numpy(), CLASSES: np.array(context.num_classes)}
        return FitResult(metrics, kept)

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return the pseudo-labels (n, K), uniform where there is none; None before the client was called noisy."""
        if LABELS not in state:
            return None
        labels, classes = state[LABELS].astype(np.int64), int(state[CLASSES])
        found = np.eye(classes, dtype=np.float32)[labels]
        found[labels == UNSURE] = 1 / classes
        return found

    def _pseudo_labels(self, model: nn.Module, context: TrainContext) -> Tensor:
        """Return the received model's labels (n,), -1 where it is not sure."""
        log_p = context.trainer.probabilities(model, context.local).clamp_min(torch.finfo(torch.float32).tiny).log()
        surest = torch.softmax(log_p / self.temperature, 1).max(1)  # log p is z but for a constant
        return torch.where(surest.values >= self.confidence, surest.indices, UNSURE)
