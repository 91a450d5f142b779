"""Callback base class, and the registry of those that a run can choose: what happens around rounds."""

import shlex
from collections.abc import Callable
from logging import ERROR
from typing import Any, TypeVar

from flwr.common.logger import log

from server_app.state import RunState
from server_app.storage.checkpoints import CheckpointFolder
from server_app.storage.run_directory import RunDirectory
from tasks.plugins import PluginError, Registry, did_you_mean, explain

R = TypeVar("R")


class Callback:
    """Override what you need; every hook does nothing by default.

    One is built before any client starts, and once more for the run itself: the constructor checks its arguments and
    leaves files and connections to :meth:`on_run_start`.
    """

    def on_run_start(self, state: RunState) -> None:
        """Called once before the first round that is done; ``state.resumed`` tells whether rounds came before."""

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str | None:
        """Called after every round, round 0 (the initial model) included; a non-empty answer stops the run.

        Parameters
        ----------
        state
            Where the run stands; must be left as it is.
        metrics
            The round's line of ``metrics.jsonl`` by name: ``round``, ``seconds`` and, where the model was evaluated,
            ``loss``, ``accuracy`` and the task's other measures, on validation data ``validation_loss`` and so on.
        """
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Called once after the last round, not after an error."""

    def on_run_closed(self, directory: RunDirectory) -> None:
        """Called once the run has ended, in whatever way, and its report is written; a failure here is only logged.

        ``directory.status()`` says how it ended. It is called even where the run ended before :meth:`on_run_start`.
        """


class CallbackError(RuntimeError):
    """A chosen callback failed; the message names it and says how to go on."""


class CallbackRegistry(Registry[Callback]):
    """Callbacks that a run can choose. Each is built with its name on it, so that its errors can be told apart."""

    def convert(self, built: Any, name: str) -> Any:
        """Return the callback under its name.

        Raises
        ------
        PluginError
            If it has a hook that is never called, such as a misspelt one.
        """
        if not isinstance(built, Callback):
            return built
        hooks = [hook for hook in dir(Callback) if hook.startswith("on_")]
        for hook in dir(type(built)):
            if hook.startswith("on_") and hook not in hooks:
                raise PluginError(f"no hook is called {hook}{did_you_mean(hook, hooks)}")
        return NamedCallback(name, built)


class NamedCallback(Callback):
    """A chosen callback; whatever it raises ends the run with a message that names it.

    It acts after the round has been written down, and gets a copy of the round's measures.
    """

    def __init__(self, name: str, callback: Callback) -> None:
        self.name = name
        self.callback = callback

    def on_run_start(self, state: RunState) -> None:
        """Pass it on.

        Raises
        ------
        CallbackError
            If the callback raises anything.
        """
        self._call(state, lambda: self.callback.on_run_start(state))

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Pass it on; the answer is given with the callback's name.

        Raises
        ------
        CallbackError
            If the callback raises anything, or answers with something else than a text.
        """
        answer: object = self._call(state, lambda: self.callback.on_round_end(state, dict(metrics)))
        if answer is not None and not isinstance(answer, str):
            wanted = "must return a text that says why to stop, or an empty one to go on"
            raise self._error(state, f"on_round_end {wanted}, got {answer!r}")
        return f"{self.name}: {answer}" if answer else ""

    def on_run_end(self, state: RunState) -> None:
        """Pass it on.

        Raises
        ------
        CallbackError
            If the callback raises anything.
        """
        self._call(state, lambda: self.callback.on_run_end(state))

    def on_run_closed(self, directory: RunDirectory) -> None:
        """Pass it on, and log what the callback raises: the run has ended as it has."""
        try:
            self.callback.on_run_closed(directory)
        except Exception as error:  # it may be the user's
            log(ERROR, "callback %r, after the end of %s: %s", self.name, directory.path, explain(error))

    def _call(self, state: RunState, hook: Callable[[], R]) -> R:
        try:
            return hook()
        except Exception as error:  # it may be the user's: whatever it raises belongs in the message
            raise self._error(state, explain(error)) from error

    def _error(self, state: RunState, reason: str) -> CallbackError:
        path = state.directory.path
        again = f"go on with {shlex.quote(f'run.resume={path}')}"
        then = again if CheckpointFolder(path).holds_any() else "start again"
        return CallbackError(
            f"callback {self.name!r}, round {state.server_round}: {reason}; what was recorded is kept: correct the "
            f"callback or take it out of run.callbacks, then {then}"
        )


CALLBACKS = CallbackRegistry("callback", Callback)


def chosen_callbacks(text: str) -> list[Callback]:
    """Build the callbacks that inline TOML such as ``tensorboard = {}`` names, in its order.

    Raises
    ------
    PluginError
        If a name is unknown, an argument does not fit, or what a callback needs is not installed.
    """
    return list(CALLBACKS.build_each(text).values())
