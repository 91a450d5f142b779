"""Training ahead: messages of a round to several clients of this process are worked on together, then each is answered.

Every message then goes its usual way through the ClientApp, and finds its training done. What cannot be done ahead is
done on that way, and so an error is that of its own client.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from flwr.app import Context, Message, MessageType
from torch import nn

from client_app.cohorts.choice import Job, cohort_size, groups, run_clients
from client_app.methods import FitResult
from client_app.mods import unpacked
from client_app.node import with_mode
from client_app.session import Session
from tasks.fresh_model import fresh_model
from tasks.protocol import RECORD, HeaderError, MessageHeader
from tasks.settings import OFF

logger = logging.getLogger(__name__)

Done = dict[str, tuple[nn.Module, FitResult]]
"""Trained models and results, by the id of the message."""
_DONE: ContextVar[Done] = ContextVar("done")


def answer_together(
    messages: Sequence[Message],
    contexts: Sequence[Context],
    answer: Callable[[Message, Context], Message],
) -> Iterator[Message]:
    """Yield the reply to each message, in their order, training several clients side by side where that is wanted.

    Parameters
    ----------
    messages, contexts
        Messages of one round to clients of this process, and for each the context of its node.
    answer
        Gives the reply to one message: the ClientApp.
    """
    pairs = list(zip(messages, contexts, strict=True))
    size = _cohort_size(pairs)
    for first in range(0, len(pairs), size):
        part = pairs[first : first + size]
        before = _DONE.set(train_ahead(part) if size > 1 else {})
        try:
            for message, context in part:
                yield answer(message, context)
        finally:
            _DONE.reset(before)


def trained_ahead(message: Message) -> tuple[nn.Module, FitResult] | None:
    """Return the trained model and the result of a message that was worked on ahead, once; None for any other."""
    return _DONE.get({}).pop(message.metadata.message_id, None)


def train_ahead(pairs: Sequence[tuple[Message, Context]]) -> Done:
    """Train the models of those messages that ask for it and can be read; what fails is left for later."""
    done: Done = {}
    with _opened(pairs) as sessions:
        for alike in groups(sessions, lambda session: (session.settings, session.header.server_round)):
            try:
                done |= _trained(alike)
            except Exception as error:  # of one client, which meets it again on its own way
                logger.warning("Clients are trained one after the other, for side by side one failed: %s", error)
    return done


@contextmanager
def _opened(pairs: Sequence[tuple[Message, Context]]) -> Iterator[list[Session]]:
    """Yield the sessions of all messages to train that can be read; the messages stay as they came."""
    sessions, sent = [], []
    for message, context in pairs:
        if message.metadata.message_type != MessageType.TRAIN:
            continue
        content = message.content
        try:
            message.content = unpacked(content)
            sent.append((message, content))
            sessions.append(with_mode(message, context, Session.open))  # type: ignore[arg-type]
        except Exception:  # it is met again, and said, when the message is answered
            continue
    try:
        yield sessions  # type: ignore[misc]
    finally:
        for message, content in sent:
            message.content = content


def _cohort_size(pairs: Sequence[tuple[Message, Context]]) -> int:
    """Return how many of the messages are to be worked on at a time, 1 where each is for itself."""
    asked = [pair for pair in pairs if pair[0].metadata.message_type == MessageType.TRAIN]
    if len(asked) < 2 or not _wants_cohorts(*asked[0]):
        return 1
    with _opened(asked[:1]) as sessions:
        chosen = [session.settings for session in sessions]
    return cohort_size(chosen[0], fresh_model(chosen[0])) if chosen else 1


def _wants_cohorts(message: Message, context: Context) -> bool:
    """Tell whether ``train.cohort`` is on; to read all settings for that would cost every run a millisecond a batch."""
    try:
        changes = MessageHeader.of(message.content.config_records.get(RECORD, {})).changes()
    except HeaderError:  # it is said when the message is answered
        return False
    return {**context.run_config, **changes}.get("train.cohort", OFF) != OFF


def _trained(sessions: Sequence[Session]) -> Done:
    jobs = []
    for session in sessions:
        round_config = session.round_config()
        state = session.store().load(round_config.server_round)
        jobs.append(Job(session.model(), session.dataset.data, round_config, state))
    results = run_clients(jobs, sessions[0].settings, sessions[0].device, sessions[0].build_rule())
    found = zip(sessions, jobs, results, strict=True)
    return {session.message.metadata.message_id: (job.model, result) for session, job, result in found}
