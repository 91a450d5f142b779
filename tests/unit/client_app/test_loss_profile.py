"""What a client says about its labels."""

import numpy as np
import torch
from sklearn.metrics import log_loss
from torch import nn

from client_app.label_quality import class_losses
from tasks.base import ClientData, predict
from tasks.client_data import client_dataset, load_task
from tasks.config import DEFAULTS, parse

CPU = torch.device("cpu")


def test_the_profile_is_the_mean_cross_entropy_of_each_given_label():
    settings = parse(DEFAULTS)
    task, data = load_task(settings.task), client_dataset(settings, 3).data
    torch.manual_seed(0)
    model = task.build_model("mlp", "")
    losses, counts = class_losses(model, task, data, 7, CPU)
    probabilities = torch.softmax(predict(model, task, data.features, 512, CPU).double(), 1).numpy()
    assert counts.sum() == len(data)
    for label in range(10):
        here = data.labels == label
        assert counts[label] == here.sum()
        expected = log_loss(data.labels[here], probabilities[here], labels=range(10)) if here.any() else 0.0
        np.testing.assert_allclose(losses[label], expected, rtol=1e-6)


def test_the_model_is_neither_trained_nor_in_training_mode():
    settings = parse(DEFAULTS)
    task, whole = load_task(settings.task), client_dataset(settings, 0).data
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.9), nn.Linear(64, 10)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, _ = class_losses(model, task, whole, 512, CPU)
    second, _ = class_losses(model.train(), task, whole, 16, CPU)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_client_with_one_class_has_one_loss():
    task = load_task(parse(DEFAULTS).task)
    features = task.train_examples().features[:5]
    data = ClientData(0, features, np.full(5, 4, np.int64), np.arange(5), 10)
    losses, counts = class_losses(task.build_model("mlp", ""), task, data, 2, CPU)
    assert np.flatnonzero(losses).tolist() == np.flatnonzero(counts).tolist() == [4]
    assert counts[4] == 5
