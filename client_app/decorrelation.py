"""Decorrelation of features: FedDecorr's term, which keeps a client's features from collapsing into few directions.

Shi, Liang, Zhang, Tan and Bai, "Towards Understanding and Mitigating Dimensional Collapse in Heterogeneous Federated
Learning" (ICLR 2023, https://arxiv.org/abs/2210.00226). Clients whose classes are unevenly distributed learn features
that vary in few directions, and so does the global model. The term is added to whatever the method minimises
(``train.decorrelation``): nothing else is sent, and a client reveals nothing beyond its update. FNBench's
representation-aware regularizer is the same term.

Cost in a round: one model each way and the usual epochs; one product of a batch's features with themselves a step.
"""

from torch import Tensor

VARIANCE_FLOOR = 1e-8
"""Added to variances, as in the authors' program, so that a feature that never changes stays 0."""


def feature_correlation(features: Tensor) -> Tensor:
    """Return how far the features of a batch are correlated: the mean squared off-diagonal of Z^T Z, divided by N.

    Z are the features, each centred and divided by its standard deviation (with N - 1) in the batch. This is the
    authors' program, whose published weight is 0.1; the paper writes ||K||^2 / F^2 with the correlation matrix K, which
    contains the diagonal and is smaller by about N. A batch of one example, or a single feature, has no correlation: 0.

    Parameters
    ----------
    features
        What the last layer was given, (N, F), floating.

    Returns
    -------
    Tensor
        A scalar, differentiable, at least 0 up to rounding.

    >>> import torch
    >>> round(feature_correlation(torch.tensor([[1.0, -2.0], [3.0, -6.0]])).item(), 6)  # off the diagonal -1, N is 2
    0.5
    """
    count, width = features.shape
    if count < 2 or width < 2:
        return features.sum() * 0.0
    centred = features - features.mean(0)
    z = centred / (centred.square().sum(0) / (count - 1) + VARIANCE_FLOOR).sqrt()
    # ||Z^T Z|| = ||Z Z^T||, and the smaller of the two products is by far the cheaper one.
    product = z @ z.T if count < width else z.T @ z
    off_diagonal = product.square().sum() - z.square().sum(0).square().sum()
    return off_diagonal / (width * (width - 1)) / count
