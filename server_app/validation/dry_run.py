"""Dry run: one tiny round with the parts that the user brought along, before any client starts.

What they return must fit, and the data of a task must be what its methods promise. Built-in parts have tests of their
own and are not tried. Everything runs on the CPU, on eight examples.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client_app import losses
from client_app.local import train_locally
from client_app.losses import IGNORE_INDEX
from client_app.losses.base import expect
from client_app.methods import METHODS, FitResult, RoundConfig
from server_app.strategy import sampled
from strategies.aggregators import aggregate, build_aggregator
from strategies.server_optimizers import SERVER_OPTIMIZERS
from tasks.base import ClientData, Examples, Task
from tasks.client_data import load_task
from tasks.fresh_model import fresh_model, initial_model
from tasks.issues import ERROR, Issue
from tasks.plugins import explain, is_own
from tasks.settings import Settings, TaskSettings
from tasks.weights import load_arrays, model_arrays

EXAMPLES = 8


def dry_run_issues(settings: Settings) -> list[Issue]:
    """Return what the user's own parts do wrong, one line each, with the import path; all parts can be built.

    Model, loss and method build on one another: after the first error of these the others are not tried.
    """
    task, chosen = load_task(settings.task), settings.strategy
    errors: list[Issue] = []
    if is_own(chosen.aggregator) or is_own(chosen.pre_aggregators):
        label = f"aggregator {chosen.aggregator!r}" if is_own(chosen.aggregator) else "strategy.pre-aggregators"
        errors += _attempt(label, try_aggregator, settings)
    if is_own(chosen.server_optimizer):
        errors += _attempt(f"server optimizer {chosen.server_optimizer!r}", try_server_optimizer, settings)
    names = {kind: getattr(settings, kind).name for kind in ("task", "model", "loss", "method")}
    own = {kind: f"{kind} {name!r}" for kind, name in names.items() if is_own(name)}
    trials = [(own[kind], try_model) for kind in ("task", "model") if kind in own]
    trials += [(own["loss"], try_loss)] if "loss" in own else []
    trials += [(", ".join(own.values()), try_training)] if own else []
    for label, trial in trials:
        if found := _attempt(label, trial, task, settings):
            return errors + found
    return errors


def _attempt(label: str, trial: Callable[..., None], *parts: Task | Settings) -> list[Issue]:
    try:
        trial(*parts)
    except Exception as error:  # the parts are the user's: whatever they raise belongs in the message
        return [Issue(ERROR, label, f"{label}: {explain(error)}")]
    return []


def _first(task: Task) -> ClientData:
    """Return the first examples as if they were a client's."""
    examples = task.first_examples(EXAMPLES)
    return ClientData(0, examples.features, examples.labels, np.arange(len(examples)), task.num_classes)


def try_model(task: Task, settings: Settings) -> None:
    """Raise ``ValueError`` unless the model returns one score per class, for one example as for more."""
    data = _first(task)
    model = fresh_model(settings).eval()
    for count in dict.fromkeys((len(data), 1)):
        try:
            with torch.no_grad():
                logits = model(task.prepare(data.features[:count]))
        except ValueError as error:  # what normalisation layers raise
            raise ValueError(f"the model must answer for a batch of {count} in evaluation mode: {error}") from error
        expect(isinstance(logits, Tensor), f"the model must return a tensor, got {type(logits).__name__}")
        expected, got = (count, task.num_classes, *data.labels.shape[1:]), tuple(logits.shape)
        expect(got == expected, f"the model must return one score per class, {expected}, got {got}")


def try_loss(task: Task, settings: Settings) -> None:
    """Raise ``ValueError`` unless the loss returns one finite value per label, 0 without a label, and a gradient."""
    loss, size = settings.loss, (EXAMPLES, *task.train_labels().shape[1:])
    counts = [1] * task.num_classes
    objective = losses.build(loss.name, task.num_classes, loss.args, loss.preset, counts)
    logits = torch.randn(size[0], task.num_classes, *size[1:], generator=torch.Generator().manual_seed(0))
    target = (torch.arange(EXAMPLES) % task.num_classes).view(-1, *[1] * (len(size) - 1)).repeat(1, *size[1:])
    target[-1] = IGNORE_INDEX
    value = objective.loss(logits.requires_grad_(), target)
    expect(isinstance(value, Tensor), f"the loss must return a tensor, got {type(value).__name__}")
    hint = ": do not reduce it, the trainer takes the mean" if value.dim() == 0 else ""
    expect(value.shape == size, f"expected one value per label, {tuple(size)}, got {tuple(value.shape)}{hint}")
    expect(bool(value.isfinite().all()), "the loss of ordinary logits is not finite")
    expect(not value[-1].any(), f"an element with the label {IGNORE_INDEX} (no label) must have the loss 0")
    expect(value.requires_grad, "the loss has no gradient: compute it from the logits, without detach() or numpy()")


def try_training(task: Task, settings: Settings) -> None:
    """Raise ``ValueError`` unless two rounds of one client return results that can be sent and kept."""
    quick = replace(settings, train=replace(settings.train, epochs=1, batch_size=EXAMPLES // 2, precision="float32"))
    arrays, state = model_arrays(fresh_model(settings)), None
    method = METHODS.build(settings.method.name, settings.method.args)
    networks = tuple(initial_model(settings, number) for number in range(2, method.networks + 1))
    named = {one.name: one.first() for one in method.extra_arrays(task, fresh_model(settings))}
    for server_round in (1, 2):
        model = fresh_model(settings)
        before = _layout(model)
        load_arrays(model, arrays)
        round_config = RoundConfig(
            server_round,
            settings.train.learning_rate,
            (settings.seed, 0, server_round),
            networks=networks,
            arrays=named,
        )
        result = train_locally(model, _first(task), quick, round_config, state, torch.device("cpu"))
        _check_result(result)
        expect(_layout(model) == before, "the method must train the model in place: its weights now have other shapes")
        arrays, state, named = model_arrays(model, arrays), result.state, result.arrays


def _layout(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _check_result(result: FitResult) -> None:
    for name, value in result.metrics.items():
        plain = isinstance(value, int | float) and np.isfinite(value)
        expect(plain, f"the metric {name!r} must be a finite number, got {value!r}")
    for name, kept in result.state.items():
        kind = type(kept).__name__
        expect(isinstance(kept, np.ndarray), f"the state {name!r} must be a NumPy array, got {kind}")
    for name, array in result.arrays.items():
        expect(bool(np.isfinite(array).all()), f"the named array {name!r} has values that are not finite")


def try_aggregator(settings: Settings) -> None:
    """Raise ``ValueError`` unless the aggregator combines as many updates as there are in a round."""
    chosen, clients = settings.strategy, sampled(settings.federation)
    aggregator = build_aggregator(chosen.aggregator, chosen.aggregator_args, chosen.pre_aggregators)
    updates = np.random.default_rng(0).standard_normal((clients, 7)).astype(np.float32)
    aggregate(aggregator, list(updates), np.ones(clients))


def try_server_optimizer(settings: Settings) -> None:
    """Raise ``ValueError`` unless the server optimizer returns a finite update of the same shape."""
    optimizer = SERVER_OPTIMIZERS.build(settings.strategy.server_optimizer, settings.strategy.server_optimizer_args)
    update = np.linspace(-1, 1, 7, dtype=np.float32)
    value = np.asarray(optimizer.apply(update, np.ones(3), None, True))
    expect(value.shape == update.shape, f"apply must return an array of shape {update.shape}, got {value.shape}")
    expect(bool(np.isfinite(value).all()), "apply returned values that are not finite")


def declared_task(settings: TaskSettings) -> Task:
    """Build the task, and raise ``ValueError`` if it does not say what its classes, inputs and model are."""
    task, label = load_task(settings), f"task {settings.name!r}: "
    for name in ("class_names", "default_model", "input_shape"):
        expect(hasattr(task, name), f"{label}the class needs the attribute {name}")
    expect(len(task.class_names) >= 2, f"{label}class_names must hold at least 2 names, got {task.class_names}")
    return task


def check_data(settings: TaskSettings) -> None:
    """Raise ``ValueError`` if examples or inputs are not as declared; built-in data sets have tests of their own."""
    built, label = load_task(settings), f"task {settings.name!r}: "
    task = built.raw
    if task.brings_own_data:
        task.train_examples()
        check_test_data(task)
    if built is not task:
        built.first_examples(EXAMPLES)  # what the encoder cannot take shows at once
    if not is_own(settings.name):
        built.train_labels()  # what is wrong with files is no fault of the partition, which asks for these labels next
        return
    _check_examples(task.train_examples(), task, f"{label}train_examples")
    if task.has_test_examples():
        _check_examples(task.test_examples(), task, f"{label}test_examples")
    names, count = list(task.example_names(task.train_ids())), len(task.train_examples())
    named = all(isinstance(name, str) for name in names) and len(names) == count
    expect(
        named, f"{label}example_names must return one text for each of the {count} ids, got {len(names)}: {names[:3]}"
    )
    raw = task.train_examples().features[:EXAMPLES]
    inputs = task.prepare(raw)
    kinds = (torch.float32,) if task.has_smooth_inputs else (torch.float32, torch.int64)
    wanted = "float32" if task.has_smooth_inputs else "float32, or word numbers as int64"
    expect(inputs.dtype in kinds, f"{label}prepare must return {wanted}, got {inputs.dtype}")
    expected, got = (len(raw), *task.input_shape), tuple(inputs.shape)
    expect(got == expected, f"{label}prepare must return {expected} for input_shape {task.input_shape}, got {got}")


def check_test_data(task: Task) -> None:
    """Raise ``DataError`` if there is test data and it cannot be used."""
    if task.has_test_examples():
        task.test_examples()


def _check_examples(examples: Any, task: Task, label: str) -> None:
    found = type(examples).__name__
    expect(isinstance(examples, Examples), f"{label} must return tasks.base.Examples, got {found}")
    features, labels = examples.features, examples.labels
    expect(len(examples) > 0, f"{label} returned no examples: at least one is needed")
    expect(isinstance(features, Tensor), f"{label}: features must be a tensor, got {type(features).__name__}")
    kind = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
    expect(kind == np.int64, f"{label}: labels must be a NumPy array of int64, got {kind}")
    low, high = labels.min(), labels.max()
    in_range = low >= 0 and high < task.num_classes
    expect(in_range, f"{label}: labels must lie in 0..{task.num_classes - 1}, but run from {low} to {high}")
