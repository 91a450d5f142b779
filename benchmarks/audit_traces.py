"""Traces of federations for the audit benchmark: what each round's model believes of every site's examples.

A federation of ten sites is played in this process, once; what is kept of it in a file is all that an audit could
know, so that many ways to score labels can be compared without playing again.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.in_process import Federation
from client_app.label_quality import Beliefs
from server_app.validation.config import check
from tasks.base import Labels, predict
from tasks.client_data import client_dataset
from tasks.config import Flat, overlay
from tasks.fresh_model import fresh_model
from tasks.settings import Settings
from tasks.weights import load_arrays

SITES = 10
COMMON: Flat = {
    "federation.num-clients": SITES,
    "num-server-rounds": 15,
    "train.epochs": 2,
    "train.device": "cpu",
    "train.threads": 1,
    "evaluate.validation": 0.0,
}
DATA: Mapping[str, Flat] = {
    "digits": {"partition.args": "alpha = 1.0, min_size = 40", "train.batch-size": 16},
    "cifar-10": {
        "task.name": "cifar-10",
        "task.encoder": "efficientnet-lite0",
        "partition.args": "alpha = 1.0, min_size = 100",
        "train.batch-size": 64,
        "train.augment": False,
        "evaluate.validation": 0.88,
    },
    "ag-news": {
        "task.name": "ag-news",
        "task.encoder": "wordllama",
        "partition.args": "alpha = 1.0, min_size = 100",
        "train.batch-size": 64,
        "evaluate.validation": 0.5,
    },
}
"""Most images and half of the news are left out: a site has some 144 digits, 600 images or 700 texts."""
METHODS: Mapping[str, Flat] = {"winnow": {}, "fedavg": {"loss.name": "ce", "strategy.aggregator": "mean"}}
RATES: Mapping[tuple[str, str], float] = {
    ("cifar-10", "winnow"): 0.01,
    ("cifar-10", "fedavg"): 0.001,
    ("ag-news", "winnow"): 0.016,
    ("ag-news", "fedavg"): 0.001,
}
"""Learning rates that were chosen on held-out examples for other runs (docs/results.md); else the default."""
NOISES: Mapping[str, Flat] = {
    "symmetric": {"noise.name": "symmetric", "noise.rates-args": "max = 0.5"},
    "pair-flip": {"noise.name": "pair-flip", "noise.rates-args": "max = 0.5"},
    "human": {},
}
HUMAN: Mapping[str, Flat] = {
    "cifar-10": {"noise.name": "human", "noise.args": 'path = "cifar-n/CIFAR-10_human.pt", column = "worse_label"'},
    "ag-news": {
        "noise.name": "human",
        "noise.args": 'path = "agnews/merged_train_small.csv", column = "human_noisy_med", clean_column = "gt"',
    },
}


@dataclass(frozen=True)
class Case:
    """All that decides a federation."""

    data: str
    noise: str
    method: str
    seed: int

    def settings(self) -> Settings:
        """Return the checked settings of the federation."""
        noise = HUMAN[self.data] if self.noise == "human" else NOISES[self.noise]
        texts = "human" if self.noise == "human" else "small"
        own: Flat = {"seed": self.seed}
        if (self.data, self.method) in RATES:
            own["train.learning-rate"] = RATES[self.data, self.method]
        if self.data == "ag-news":
            own["task.args"] = f'vocabulary = 10_000, train = "{texts}"'
        return check(overlay(COMMON, DATA[self.data], METHODS[self.method], noise, own))

    def file(self) -> str:
        """Return the name of the file in which the trace is kept."""
        return "_".join(map(str, astuple(self))) + ".npz"


@dataclass(frozen=True)
class SiteTrace:
    """What one site could know, and the truth.

    Attributes
    ----------
    beliefs
        Class probabilities of the model of each round's begin and of the last one, (rounds + 1, n, K).
    features
        What a model of the site's own would learn from, (n, F).
    labels, truth
        The given and the true labels, (n,).
    """

    beliefs: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    labels: Labels
    truth: Labels

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Whether each given label is wrong, (n,)."""
        return np.asarray(self.labels != self.truth)


def play(case: Case, folder: Path) -> None:
    """Play a federation, unless that is done, and keep its trace in the folder."""
    path = folder / case.file()
    if path.exists():
        return
    torch.set_num_threads(1)
    federation = Federation(case.settings())
    seen, accuracy = [_beliefs(federation)], np.nan
    for line in federation.rounds(first_measured=federation.settings.num_server_rounds):
        seen.append(_beliefs(federation))
        accuracy = line.get("accuracy", np.nan)
    content = {f"beliefs-{site}": np.stack([each[site] for each in seen]).astype(np.float16) for site in range(SITES)}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, accuracy=accuracy, **content)


def _beliefs(federation: Federation) -> list[Beliefs]:
    """Return what the present model believes of each site's examples, (n, K) each."""
    settings, evaluation = federation.settings, federation.evaluation
    model = fresh_model(settings)
    load_arrays(model, federation.arrays)
    found = []
    for site in range(SITES):
        features = client_dataset(settings, site).data.features
        logits = predict(model, evaluation.task, features, settings.evaluate.batch_size, evaluation.device)
        found.append(torch.softmax(logits.double(), 1).numpy())
    return found


def read(case: Case, folder: Path) -> tuple[list[SiteTrace], float]:
    """Return the kept trace of each site, and the last model's accuracy on the test data."""
    settings = case.settings()
    with np.load(folder / case.file(), allow_pickle=False) as content:
        beliefs = [content[f"beliefs-{site}"].astype(np.float32) for site in range(SITES)]
        accuracy = float(content["accuracy"])
    return [_trace(settings, site, beliefs[site]) for site in range(SITES)], accuracy


def _trace(settings: Settings, site: int, beliefs: npt.NDArray[np.float32]) -> SiteTrace:
    dataset = client_dataset(settings, site)
    features = dataset.data.features.float().flatten(1)
    if settings.task.encoder:
        features = torch.nn.functional.layer_norm(features, features.shape[1:], eps=1e-12)
    return SiteTrace(beliefs, features.numpy(), dataset.data.labels, dataset.true_labels)
