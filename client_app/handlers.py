"""Handlers of the ClientApp: what it does with each kind of message; client_app/app.py leads to them."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.logger import log
from torch import nn

from client_app.attacks import run_client
from client_app.cohorts.answers import answer_together, trained_ahead
from client_app.embedding_issues import audit_embeddings, write_issues
from client_app.label_audit_files import task_facts, write_audit
from client_app.label_audit_report import audit_warnings
from client_app.label_quality import Audit, audit_client
from client_app.local import answer_locally
from client_app.loss_profile import loss_profile
from client_app.mask_audit import audit_masks
from client_app.mask_audit_files import write_mask_audit
from client_app.mods import RAISED, egress_log, named_arrays, watchdog, with_privacy
from client_app.node import NodeError, brings_data, fingerprint, site_facts, warn_of_left_out, with_mode
from client_app.personal.results import SiteResults
from client_app.private_accuracy import noisy_accuracy
from client_app.session import Session
from client_app.word_importance import mark_words, write_words
from tasks.base import DataError, Examples, FittedTask, Task, evaluate
from tasks.client_data import knows_right_labels, load_task
from tasks.protocol import NO_FOLDER, WANT_PROFILE, Mode
from tasks.seeds import rng

app = ClientApp(mods=[with_mode, watchdog, egress_log, named_arrays])


@app.query("identity")
def identity(message: Message, context: Context) -> Message:
    """Say how many examples this client has; in a simulation also how many of its labels are wrong."""
    session = Session.open(message, context)
    warn_of_left_out(session.settings, session.mode)
    session.lock_folder()
    facts: dict[str, Any] = {"client": session.header.client, **site_facts(context.node_config)}
    if brings_data(session.settings, session.mode):
        facts["data-fingerprint"] = fingerprint(session.dataset.data, session.header.run_name)
    if session.mode is Mode.SIMULATION:  # what a real site knows about its labels stays there
        if knows_right_labels(session.settings):
            facts["noise-rate"] = session.dataset.noise_rate
        if session.dataset.data.labels.ndim == 1:
            facts["class-counts"] = session.dataset.data.class_counts().tolist()
    return session.reply(facts)


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Say what the task must know of all clients' examples before it can make inputs of them; no example leaves."""
    session = Session.open(message, context)
    task = load_task(session.settings.task)
    if not isinstance(task, FittedTask) or task.statistics:
        raise NodeError(f"the task {session.settings.task.name!r} needs no statistics of this node")
    answer = task.summary(session.dataset.data.ids)
    if session.mode is Mode.DEPLOYMENT:  # the log of what leaves a node only counts the numbers of a list
        log(INFO, "Statistics for the server: %s", task.in_words(answer))
    return session.reply(answer)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model for one round, with the configured privacy."""
    return with_privacy(Session.open(message, context), train_locally)


def train_locally(session: Session) -> Message:
    """Train the received model, if that is not done yet, and keep the client's state."""
    round_config, store = session.round_config(), session.store()
    done = trained_ahead(session.message)
    if done is None:
        model, state = session.model(), store.load(round_config.server_round)
        data, settings, device = session.dataset.data, session.settings, session.device
        result = run_client(model, data, settings, round_config, state, device, session.build_rule())
    else:
        model, result = done
    store.save(round_config.server_round, result.state)
    if round_config.config.get(WANT_PROFILE):
        result = replace(result, metrics={**result.metrics, **_profile(session)})
    return session.reply_trained(model, result)


@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    """Say how large the received model's mean loss is on each class of this client's examples."""
    session = Session.open(message, context)
    return session.reply(_profile(session))


def _profile(session: Session) -> dict[str, Any]:
    """Return the client's loss profile under the received model."""
    task, batch_size = load_task(session.settings.task), session.settings.evaluate.batch_size
    wanted = session.round_config().config
    return loss_profile(session.model(), task, session.dataset.data, batch_size, session.device, wanted)


@app.query("method")
def ask_method(message: Message, context: Context) -> Message:
    """Let the client method answer a question of the strategy; it comes before the training of its round."""
    session = Session.open(message, context)
    round_config, store = session.round_config(), session.store()
    state = store.load(round_config.server_round)
    result = answer_locally(
        session.model(), session.dataset.data, session.settings, round_config, state, session.device
    )
    store.save(round_config.server_round - 1, result.state)
    return session.reply(result.metrics)


@app.query("audit")
def audit(message: Message, context: Context) -> Message:
    """Write this client's label audit into its own folder; the answer says nothing about its labels."""
    session = Session.open(message, context)
    settings, server_round, folder = session.settings, session.header.server_round, session.folder()
    if folder is None:
        log(
            WARNING,
            "No label audit: this node has no folder of its own. Start it with --node-config 'state-dir=/a/folder' to "
            "get one after the next run.",
        )
        return session.reply({NO_FOLDER: 1})
    data, task, wanted = session.dataset.whole.data, load_task(settings.task), settings.audit.format
    model = session.model()
    facts = {
        "run": session.header.run_name,
        "client": session.header.client,
        "round": server_round,
        "model_round": session.model_round,
        "method": settings.method.name,
        "task": task_facts(settings.task),
    }
    if task.labels_pixels:
        masks = audit_masks(model, data, settings, session.device)
        path = write_mask_audit(folder, masks, data, task, wanted, facts)
    else:
        state = session.store().load(server_round + 1)
        found = audit_client(model, data, settings, state, session.device, session.dataset.data)
        path = write_audit(folder, found, task.class_names, wanted, facts)
        mark_texts(session, model, task, found, folder)
        if session.mode is Mode.DEPLOYMENT:
            for text in audit_warnings(found, task.class_names):
                log(WARNING, "Label audit: %s", text)
        if settings.audit.embeddings:
            issues = audit_embeddings(model, task, data, settings.evaluate.batch_size, session.device)
            write_issues(folder, issues, data.labels, task.example_names(data.ids), task.class_names, wanted)
    if session.mode is Mode.DEPLOYMENT:  # in a simulation the server says it once for all clients
        log(INFO, "Label audit: %s", path)
        log(INFO, "Site report: %s", SiteResults(session, folder).make(full=False))
    return session.reply({})


def mark_texts(session: Session, model: nn.Module, task: Task, found: Audit, folder: Path) -> None:
    """Write which words speak against the labels of own texts; the audit stands without, where they cannot be read."""
    batch_size = session.settings.evaluate.batch_size
    try:
        marked = mark_words(model, task, found, batch_size, session.device)
    except DataError as error:
        log(WARNING, "No words are marked in the texts of the label audit: %s", error)
        marked = {}
    if marked is not None:
        write_words(folder, marked)


@app.query("personal")
def personal(message: Message, context: Context) -> Message:
    """Compare with training alone, tune a model of the site's own; nothing of it is in the answer."""
    session = Session.open(message, context)
    folder = session.folder()
    if folder is None:
        raise NodeError("this node has no folder of its own: start it with --node-config 'state-dir=/a/folder'")
    path = SiteResults(session, folder).make(full=True)
    if session.mode is Mode.DEPLOYMENT:
        log(INFO, "Site report: %s", path)
    return session.reply({})


@app.evaluate()
def evaluate_locally(message: Message, context: Context) -> Message:
    """Measure the received model on its own examples, with the labels it was given; on those held out if any."""
    session = Session.open(message, context)
    held_out = session.dataset.held_out
    if held_out is not None and not len(held_out):
        count = len(session.dataset.data)
        raise NodeError(f"none of the {count} examples of this client can be held out to evaluate on")
    data = session.dataset.data if held_out is None else held_out
    batch_size = session.settings.evaluate.batch_size
    task = load_task(session.settings.task)
    measures = evaluate(session.model(), task, Examples(data.features, data.labels), batch_size, session.device)
    return session.reply(with_noise(session, measures, len(data)))


def with_noise(session: Session, measures: dict[str, float], examples: int) -> dict[str, float]:
    """Return the measures that may leave: all, or with ``evaluate.epsilon`` a private accuracy and nothing else."""
    settings, header = session.settings, session.header
    if not settings.evaluate.epsilon:
        return measures
    predictable = session.mode is Mode.SIMULATION  # noise that anyone who knows the seed can subtract protects nobody
    seeded = rng(settings.seed, "evaluation noise", header.client, header.server_round)
    noise = seeded if predictable else np.random.default_rng()
    right = round(measures["accuracy"] * examples)
    return {"accuracy": noisy_accuracy(right, examples, settings.evaluate.epsilon, noise)}


def answer(messages: Sequence[Message], contexts: Sequence[Context]) -> Iterator[Message]:
    """Answer messages of one round to clients of this process: the replies in their order.

    Clients are trained one after the other, or side by side if ``train.cohort`` says so.
    """
    return answer_together(messages, contexts, _answered)


def _answered(message: Message, context: Context) -> Message:
    """Answer one message; an exception becomes an error reply, in the words of Flower's engine."""
    try:
        return app(message, context)
    except Exception as error:  # whatever it is, it is this client's
        log(ERROR, "%s", traceback.format_exc())
        raised = ClientAppException(str(error))
        return Message(Error(RAISED, f"{type(raised)}:<'{raised}'>"), reply_to=message)
