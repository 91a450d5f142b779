"""Engine and number format of local training: what ``auto`` stands for, and forward passes that are compiled.

``train.precision = "auto"`` is decided once by the server of a simulation, whose clients run on the same machine: it
times steps of the run's own network, in bfloat16 only where the machine computes in it, and channels last only for
images. Where nothing but float32 is left it is that at once, as for real nodes, whose processors the server does not
know. ``train.engine = "auto"`` compiles on a GPU.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from tasks.base import Task
from tasks.protocol import Mode
from tasks.settings import AUTO, TrainSettings

logger = logging.getLogger("flwr")  # Flower's shows what is only information

CHANNELS_LAST = "-channels-last"
CLEAR_WIN = 1.1
"""How many times as fast as float32 another number format must be: the digits that it costs should buy something."""
ROUNDS, PATIENCE = 5, 5.0
"""Turns of each candidate, and seconds after which no further turn starts."""


def computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether the device has instructions for bfloat16, and does not only imitate it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def decided(options: TrainSettings, task: Task, model: nn.Module, device: torch.device, mode: Mode) -> TrainSettings:
    """Return the settings with a number format and an engine in place of ``auto``, and log the reasons.

    ``model`` is used up: it is trained a little.
    """
    if options.engine == AUTO:
        options = replace(options, engine="compile" if device.type == "cuda" else "eager")
        logger.info("train.engine = auto: %s, as the device is %s", options.engine, device)
    if options.precision != AUTO:
        return options
    if mode is Mode.DEPLOYMENT:
        reason, chosen = "the server does not know the processors of real nodes", "float32"
    elif (names := candidates(task, device)) == ["float32"]:
        reason, chosen = f"this machine's {device.type} has no arithmetic in bfloat16", "float32"
    else:
        seconds = probe(options, task, model, device, names)
        best = min(seconds, key=lambda name: seconds[name])
        chosen = best if seconds[best] * CLEAR_WIN < seconds["float32"] else "float32"
        reason = ", ".join(f"{name} {1e3 * taken:.2f} ms a step" for name, taken in seconds.items())
    logger.info("train.precision = auto: %s (%s)", chosen, reason)
    return replace(options, precision=chosen)


def candidates(task: Task, device: torch.device) -> list[str]:
    """Return the number formats that may be faster than others, float32 first."""
    formats = ["float32", *(["bfloat16"] if computes_in_bfloat16(device) else [])]
    are_images = task.prepare(task.first_examples(1).features).dim() == 4
    return [name + layout for name in formats for layout in ("", CHANNELS_LAST) if are_images or not layout]


def probe(
    options: TrainSettings, task: Task, model: nn.Module, device: torch.device, names: Sequence[str]
) -> dict[str, float]:
    """Return the least seconds of forward and backward pass of a full batch in each of the named formats.

    CPU seconds on a CPU, so that other work on the machine decides nothing. Candidates take turns.
    """
    examples = task.first_examples(options.batch_size).features
    rows = torch.arange(options.batch_size) % len(examples)
    inputs = task.prepare(examples[rows].to(device))
    steps = {name: _step(model.to(device).train(), inputs, name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started = time.monotonic()
    for turn in range(ROUNDS + 1):  # the first is to warm up
        if turn > 1 and time.monotonic() - started > PATIENCE:
            break
        for name, step in steps.items():
            taken = timed(step, device)
            seconds[name] += [taken] * (turn > 0)
    return {name: min(taken) for name, taken in seconds.items()}


def _step(model: nn.Module, inputs: Tensor, precision: str) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        lay_out(model, precision.endswith(CHANNELS_LAST))
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision.startswith("bfloat16")):
            logits = model(laid_out_inputs(inputs, precision))
        torch.logsumexp(logits.float(), 1).mean().backward()  # type: ignore[no-untyped-call]

    return step


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that ``work`` takes; on a CPU its CPU time, in which other work does not count."""
    if device.type == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


def lay_out(model: nn.Module, channels_last: bool) -> None:
    """Lay out all weights of convolutions channels last, or back as torch makes them, in place."""
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def laid_out_inputs(inputs: Tensor, precision: str) -> Tensor:
    """Lay out a batch of images (B, C, H, W) as the number format says; anything else stays as it is."""
    if precision.endswith(CHANNELS_LAST) and inputs.dim() == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


@cache
def compiled(function: Callable[..., Tensor], device_type: str) -> "Compiled":
    """Return a function that is compiled when it is first called; one in a process, so that clients share it."""
    return Compiled(function, device_type)


class Compiled:
    """A function compiled by torch, on a GPU into CUDA graphs; where that fails, the function as it is.

    The reason is logged once.
    """

    def __init__(self, function: Callable[..., Tensor], device_type: str) -> None:
        self.function = function
        self.failed = ""
        self._device_type = device_type
        self._fast: Callable[..., Tensor] | None = None

    def __call__(self, *args: object) -> Tensor:
        """Call the compiled function, or the plain one if it cannot be compiled."""
        if self.failed:
            return self.function(*args)
        try:
            if self._fast is None:
                mode = "reduce-overhead" if self._device_type == "cuda" else None
                self._fast = torch.compile(self.function, mode=mode, dynamic=False)
            return self._fast(*args)
        except Exception as error:  # compilers fail in many ways, and the plain function says what is wrong with it
            value = self.function(*args)
            self.failed = f"{type(error).__name__}: {error}".split("\n")[0][:300]
            logger.warning("train.engine: not compiled, trains as eager: %s", self.failed)
            return value
