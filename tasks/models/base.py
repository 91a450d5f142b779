"""Networks by name; one of your own is named by its import path."""

from torch import nn

from tasks.plugin import Registry

MODELS = Registry("model", nn.Module)
