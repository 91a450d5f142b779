"""A task of your own, from a table: benign or malignant from 30 measurements of cell nuclei.

A task says what the data is, how it becomes a model's input and which model is the default. scikit-learn brings this
table along; read your own with ``pandas`` or ``numpy`` from ``data_path``, which is ``task.data-path``.

    winnow run task.name=examples.tumours:Tumours partition.name=iid partition.args='' federation.num-clients=8 \
        noise.rates-args='max = 0.4'
"""

from functools import cached_property

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from tasks import Examples, Task
from tasks.models import MODELS


class Tumours(Task):
    """Breast tumours of 569 patients, a fifth of them held out for the test (Street, Wolberg, Mangasarian, 1993)."""

    class_names = ("malignant", "benign")
    default_model = "mlp"
    input_shape = (30,)

    def train_examples(self) -> Examples:
        """Return the 455 training examples, float32 (455, 30)."""
        return self._split[0]

    def test_examples(self) -> Examples:
        """Return the 114 clean test examples, which only the server sees."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Examples, Examples]:
        table = load_breast_cancer()
        everything = Examples(torch.from_numpy(table.data.astype(np.float32)), table.target.astype(np.int64))
        train, test = train_test_split(np.arange(569), test_size=114, random_state=0, stratify=table.target)
        return everything.take(train), everything.take(test)

    def prepare(self, features: Tensor) -> Tensor:
        """Bring every column (N, 30) to about mean 0 and spread 1; sizes and areas differ by a factor of 1e5."""
        raw = self.train_examples().features
        mean, spread = raw.mean(0).to(features.device), raw.std(0).to(features.device)
        return (features - mean) / spread

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the model that the configuration names for 30 inputs and two classes."""
        chosen = self.default_model if name == "auto" else name
        return MODELS.build(chosen, args, num_classes=self.num_classes, input_shape=self.input_shape)
