"""What a client says about its labels: the mean loss of each class under the global model, and nothing else.

The loss profile of FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023): where many labels are wrong, a model trained by
all clients disagrees with them.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from tasks.base import ClientData, Task
from tasks.measure import predict


def class_losses(
    model: nn.Module, task: Task, data: ClientData, batch_size: int, device: torch.device
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return a client's loss profile: evaluation mode, no augmentation, plain cross-entropy in nats.

    Returns
    -------
    losses
        Mean cross-entropy of the examples with each given label, (K,); 0 where there are none.
    counts
        Number of examples with each given label, (K,).
    """
    labels = torch.from_numpy(data.labels)
    logits = predict(model, task, data.features, batch_size, device)
    each = F.cross_entropy(logits.double(), labels, reduction="none").numpy()
    counts = data.class_counts()
    return np.bincount(data.labels, each, data.num_classes) / np.maximum(counts, 1), counts
