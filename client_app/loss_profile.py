"""Loss profile: what a client says about its labels, its mean loss on each class and, if asked, its noise rate.

The noise rate is estimated without clean data: where the model is surest, labels that contradict it are mostly wrong.
Of all labels that contradict a model many are right and the model is not, the more so the weaker it is; of those in
its surest half few are. What the model says is weighed by the client's own shares of labels, for a client that has few
of a class has few examples of it (Menon et al., ICLR 2021: by la-ce logits are trained for equal shares).

Measured on CIFAR-10 (a linear head on frozen features, 100 clients, Dirichlet 0.5, 20 rounds with la-ce): 0.9 % where
all labels are right, 20.9 % where 20 % are wrong at random, 21.4 % where it is by pairs; with Dirichlet 1.0, 33 % of
the 40 % that people got wrong.

Losses may be weighed likewise, by class shares that are estimated without looking at the labels: a weak model doubts
whatever is rare in the federation, and a client that has much of it looks noisy. Own shares of labels will not do
there: wrong labels by pairs make a class look common which the client hardly has.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from client_app.label_quality import losses_by_class
from client_app.noise_rate import contradicted
from tasks.base import ClientData, Task, predict
from tasks.protocol import NOISE_RATE, WANT_NOISE_RATE, WANT_SHARES

EM_STEPS = 50


def loss_profile(
    model: nn.Module,
    task: Task,
    data: ClientData,
    batch_size: int,
    device: torch.device,
    wanted: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Return what the client reports: ``class-losses`` and ``class-counts``, (K,) each, and if wanted ``noise-rate``.

    The model looks in evaluation mode and without augmentation; see :func:`client_app.label_quality.class_losses`.
    ``wanted`` is the message's record; with ``estimate-shares`` losses are those of logits + log :func:`class_shares`.
    """
    logits, asked = predict(model, task, data.features, batch_size, device), wanted or {}
    weighed = logits.double() + class_shares(logits).log() if asked.get(WANT_SHARES) else logits
    losses, counts = losses_by_class(weighed, data)
    profile: dict[str, Any] = {"class-losses": losses.tolist(), "class-counts": counts.tolist()}
    if asked.get(WANT_NOISE_RATE):
        profile[NOISE_RATE] = noise_rate(logits, torch.from_numpy(data.labels))
    return profile


def class_shares(logits: Tensor) -> Tensor:
    """Return the class shares (K,), float64, that a client's examples seem to have by a model's logits (n, K) of them.

    Expectation-maximisation from equal shares q: q is the mean of softmax(logits + log q), as if there were one more
    example of each class, so that none is 0 (Saerens, Latinne, Decaestecker, Neural Computation 2002). The model is
    taken for one that was trained on equal shares. Labels play no part.
    """
    logits = logits.double()
    count, classes = logits.shape
    shares = torch.full((classes,), 1 / classes, dtype=torch.float64)
    for _ in range(EM_STEPS):
        shares = (torch.softmax(logits + shares.log(), 1).sum(0) + 1) / (count + classes)
    return shares


def noise_rate(logits: Tensor, labels: Tensor) -> float:
    """Return the estimated share of wrong labels among ``labels`` (n,), n at least 1, from logits (n, K).

    It is the share of contradicted labels among the half of the examples, at least one, whose prediction is surest.
    A prediction is softmax(logits + log shares of the client's own labels).
    """
    share, _, _ = contradicted(logits.double().numpy(), labels.numpy())
    return share
