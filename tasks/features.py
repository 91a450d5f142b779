"""Features: what a model's last layer is given, beside the logits that it answers.

A model says which layer is its last by an attribute ``feature_layer``, the layer's name as in ``named_modules()``. If
it says nothing, it is the layer with parameters that made the very tensor which the model returns: ``Linear`` in nearly
all classifiers, whatever it is called, also in an inner network and also if an ``Identity`` follows. A model that does
something with the scores afterwards (divides them, takes a log-softmax) must say it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn, no_grad

FEATURE_LAYER = "feature_layer"
"""Attribute of a model that names its last layer."""


class FeatureError(ValueError):
    """It is not known what the features of a model are; the message says what to do."""


class FeatureRecord:
    """What layers of a model were given and made in its last forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._named = _declared(model)
        self._passes: list[tuple[nn.Module, Tensor, object]] = []

    def hook(self) -> list[Any]:
        """Listen to the declared last layer, or to all layers; return the handles that end it."""
        layers = [self._named] if self._named is not None else list(self._model.modules())
        return [layer.register_forward_hook(self._note, with_kwargs=True) for layer in layers]

    def start(self) -> None:
        """Forget earlier forward passes."""
        self._passes.clear()

    def of(self, logits: Tensor) -> Tensor:
        """Return the features (N, F) from which ``logits``, the answer of the last forward pass, were made; float32.

        Raises
        ------
        FeatureError
            If the last layer is not known, was not used, or was given more than one vector of each example.
        """
        given = self._given(logits)
        if given.dim() != 2 or len(given) != len(logits):
            expected = f"one vector of each of the {len(logits)} examples"
            raise FeatureError(f"the last layer of {self._name} must be given {expected}, got {tuple(given.shape)}")
        return given.float()

    @property
    def _name(self) -> str:
        return type(self._model).__name__

    def _given(self, logits: Tensor) -> Tensor:
        if self._named is not None:
            if not self._passes:
                name = getattr(self._model, FEATURE_LAYER)
                raise FeatureError(f"{self._name} names {name!r} as its last layer, and does not use it")
            return self._passes[-1][1]
        maker, given = self._made(logits)
        if maker is None or maker is self._model or next(maker.parameters(), None) is None:
            raise self._untold()
        return given

    def layer(self, logits: Tensor) -> nn.Module:
        """Return the last layer, which made ``logits`` in the last forward pass: the model itself if it is one layer.

        Raises
        ------
        FeatureError
            If it is not known.
        """
        maker = self._made(logits)[0] if self._named is None else self._named
        joined = maker is self._model and next(self._model.children(), None) is not None
        if maker is None or joined or next(maker.parameters(), None) is None:
            raise self._untold()
        return maker

    def _made(self, logits: Tensor) -> tuple[nn.Module | None, Tensor]:
        """Return the layer that made these logits and what it was given; inner layers come first."""
        return next(((layer, given) for layer, given, made in self._passes if made is logits), (None, logits))

    def _untold(self) -> FeatureError:
        return FeatureError(
            f"the layer that makes the scores of {self._name} cannot be told: give the model an attribute "
            f"{FEATURE_LAYER}, the name of its last layer with weights, such as {FEATURE_LAYER} = 'classifier'"
        )

    def _note(self, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], made: object) -> None:
        given = args[0] if args else next(iter(named.values()), None)
        if isinstance(given, Tensor):
            self._passes.append((layer, given, made))


def _declared(model: nn.Module) -> nn.Module | None:
    """Return the layer that a model names as its last, None if it names none."""
    name = getattr(model, FEATURE_LAYER, None)
    if name is None:
        return None
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if not isinstance(name, str) or name not in layers or not name:
        known = ", ".join(layer for layer in list(layers)[-5:] if layer)
        text = f"{FEATURE_LAYER} = {name!r}: {type(model).__name__} has no such layer"
        raise FeatureError(f"{text}; its last are: {known}")
    return layers[name]


@contextmanager
def recorded_features(model: nn.Module) -> Iterator[FeatureRecord]:
    """Record the features of every forward pass of ``model`` within the block: ``record.of(logits)`` returns them.

    Gradients flow through them.

    Raises
    ------
    FeatureError
        If the model names a last layer that it does not have.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 4))
    >>> with recorded_features(model) as record:
    ...     logits = model(torch.ones(5, 3))
    >>> record.of(logits).shape
    torch.Size([5, 2])
    """
    record = FeatureRecord(model)
    handles = record.hook()
    forget = model.register_forward_pre_hook(lambda *_: record.start())
    try:
        yield record
    finally:
        for handle in (*handles, forget):
            handle.remove()


@no_grad()
def last_layer(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Return the layer of ``model`` that makes the scores of ``inputs`` (N, ...).

    Raises
    ------
    FeatureError
        If it is not known.
    """
    with recorded_features(model) as record:
        return record.layer(model(inputs))


def features_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the features (N, F) of ``inputs`` (N, ...), in the model's present mode, differentiable; float32.

    Raises
    ------
    FeatureError
        If the last layer is not known, or is given more than one vector of each example.
    """
    with recorded_features(model) as record:
        return record.of(model(inputs))
