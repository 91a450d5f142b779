"""A callback of your own: it ends the run as soon as the model is good enough on validation data.

A callback acts around rounds, and may stop the run. Run from the repository root:

    winnow run loss.name=ce \
        run.callbacks='"examples.target_accuracy:TargetAccuracy" = { target = 0.95, evaluations = 3 }'
"""

from typing import Any

from server_app import Callback, RunState


class TargetAccuracy(Callback):
    """Stops the run after so many evaluations in a row with a validation accuracy of at least ``target``.

    Test data must not stop a run: what it says afterwards would flatter.

    Raises
    ------
    ValueError
        If the target is not in (0, 1], or no evaluation is asked for.
    """

    def __init__(self, target: float, evaluations: int = 1) -> None:
        if not 0 < target <= 1:
            raise ValueError(f"target must be a share above 0 and at most 1, such as 0.95, got {target}")
        if evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, got {evaluations}")
        self.target = target
        self.evaluations = evaluations
        self._reached = 0  # counted anew in a resumed run

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Return why to stop, or an empty text."""
        if "validation_accuracy" not in metrics:  # this round was not evaluated, or nothing is held out
            return ""
        self._reached = self._reached + 1 if metrics["validation_accuracy"] >= self.target else 0
        if self._reached < self.evaluations:
            return ""
        return f"the validation accuracy is {metrics['validation_accuracy']:.3f}, the target is {self.target:g}"
