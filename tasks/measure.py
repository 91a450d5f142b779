"""Measure a model on labelled examples."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Examples, Task


@torch.inference_mode()
def predict(model: nn.Module, task: Task, features: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Return the logits (N, K) of raw ``features`` (N, ...) on the CPU; evaluation mode, no augmentation."""
    model.to(device).eval()
    return torch.cat(
        [model(task.prepare(batch.to(device))).float().cpu() for batch in torch.split(features, batch_size)]
    )


def evaluate(
    model: nn.Module, task: Task, examples: Examples, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Return the mean cross-entropy as ``loss`` together with the task's own measures."""
    logits = predict(model, task, examples.features, batch_size, device)
    labels = torch.from_numpy(examples.labels)
    return {"loss": F.cross_entropy(logits, labels).item(), **task.metrics(logits, labels)}
