"""Optimizers of local training: PyTorch's own, without what they import for ``torch.compile``.

The first call of an optimizer of PyTorch imports ``torch._dynamo``, to mark what the compiler must not trace: two CPU
seconds and 900 modules, in every client process, more than many clients train in a round.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

MARKED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


@cache
def uncompiled(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return the optimizer with the same methods, less the marks for the compiler around them.

    Its steps are the same to the last bit. A step that is compiled as a whole takes PyTorch's own class.
    """
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in MARKED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))  # PyTorch's mark turns the gradient off too
    made: type[Optimizer] = type(kind.__name__, (kind,), methods)
    return made
