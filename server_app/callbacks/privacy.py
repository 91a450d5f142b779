"""What has been spent of the clients' privacy."""

from typing import Any

from server_app.callbacks.base import Callback
from server_app.privacy import INSTALL, spent_epsilon
from server_app.state import RunState
from strategies.privacy import PrivateStrategy


class PrivacySpent(Callback):
    """Adds ``epsilon`` and the clipping norm to the round's measures, and prints the total at the end.

    Comes before the callbacks that write the measures down.
    """

    def __init__(self) -> None:
        self._accounted = True

    def on_run_start(self, state: RunState) -> None:
        """Say so if nothing can be accounted."""
        try:
            spent_epsilon(state.settings.privacy, 0)
        except ImportError:
            self._accounted = False
            print(f"Privacy: epsilon is not accounted, because dp-accounting is missing: {INSTALL}", flush=True)

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Add the measures of privacy."""
        if isinstance(state.strategy, PrivateStrategy) and state.server_round:
            metrics["clipping_norm"] = state.strategy.mechanism.wrapper.clipping_norm
        epsilon = self._epsilon(state)
        if epsilon is not None:
            metrics["epsilon"] = epsilon
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Print the total."""
        epsilon, privacy = self._epsilon(state), state.settings.privacy
        if epsilon is not None:
            against = "the server and everybody else" if privacy.mode == "local" else "whoever sees the models"
            print(
                f"Privacy spent: epsilon = {epsilon:.4g} at delta = {privacy.delta:g} after {_releases(state)} "
                f"releases, of one client's whole data, against {against}",
                flush=True,
            )

    def _epsilon(self, state: RunState) -> float | None:
        return spent_epsilon(state.settings.privacy, _releases(state)) if self._accounted else None


def _releases(state: RunState) -> int:
    """Return the noisy models so far; with local privacy the replies of a client that is asked in every round."""
    played = state.strategy.mechanism.releases if isinstance(state.strategy, PrivateStrategy) else state.server_round
    return played + state.rounds_again
