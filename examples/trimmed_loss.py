"""A client method of your own: each client leaves out the examples that the global model finds least plausible.

A method gets the model with the global weights, and what it needs to train it. Run from the repository root:

    winnow run method.name=examples.trimmed_loss:TrimmedLoss method.args='drop = 0.3' loss.name=ce
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from client_app.methods import ClientMethod, FitResult, LocalData, RoundConfig, State, TrainContext, train
from tasks import predict


@dataclass(frozen=True)
class TrimmedLoss(ClientMethod):
    """Train on the share 1 - ``drop`` of examples with the smallest loss (Shen and Sanghavi, ICML 2019).

    Wrong labels tend to have a large loss once the model has learned something, so nothing is dropped before round
    ``start``.
    """

    drop: float = 0.2
    start: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop = {self.drop}: must be at least 0 and below 1")

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train ``model``, which holds the global weights, in place on the examples that are kept."""
        if round_config.server_round < self.start:
            return train(model, context, round_config, context.objective)
        local, options = context.local, context.trainer.options
        logits = predict(model, context.trainer.task, local.features, options.batch_size, context.trainer.device)
        losses = F.cross_entropy(logits.to(local.labels.device), local.labels, reduction="none")
        count = max(1, round((1 - self.drop) * len(local)))
        kept = torch.argsort(losses)[:count]
        chosen = LocalData(local.features[kept], local.labels[kept])
        result = train(model, replace(context, local=chosen), round_config, context.objective)
        return replace(result, metrics={**result.metrics, "kept": count})
