"""Seeds of named random streams: every random draw of a run comes from ``(seed, names)`` and from nothing else.

A stream depends only on its name, never on what was drawn before, so clients may run in any order
and a resumed run draws what the uninterrupted run would have drawn.
"""

import hashlib
import random

import numpy as np

Name = str | int


def entropy(seed: int, *names: Name) -> int:
    """Return a 128-bit integer that is a fixed function of ``seed`` and the stream's ``names``."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def rng(seed: int, *names: Name) -> np.random.Generator:
    """Return the NumPy generator of one named stream.

    >>> rng(1, "noise", 3).integers(100) == rng(1, "noise", 3).integers(100)
    np.True_
    """
    return np.random.default_rng(entropy(seed, *names))


def torch_seed(seed: int, *names: Name) -> int:
    """Return a seed for ``torch.manual_seed``: 63 bits, because torch rejects larger ones."""
    return entropy(seed, *names) >> 65


def seed_everything(seed: int, *names: Name) -> None:
    """Seed Python, NumPy and torch with one named stream, for code that draws from global generators."""
    import torch

    random.seed(entropy(seed, *names))
    np.random.seed(entropy(seed, *names) % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(torch_seed(seed, *names))
    else:  # that would keep the seed for devices of every kind, with the stack of the caller as text: 1 ms
        torch.default_generator.manual_seed(torch_seed(seed, *names))


def seed_noise(predictable: bool, seed: int, *names: Name) -> None:
    """Seed NumPy's global generator, from which Flower draws privacy noise.

    In a simulation (``predictable``) by one named stream, so that a run can be repeated; else by the operating
    system: noise that anyone who knows the seed can subtract protects nobody.
    """
    np.random.seed(entropy(seed, *names) % 2**32 if predictable else None)
