"""An attack on filters that trust what has a small loss."""

from dataclasses import dataclass, replace

import torch

from client_app.attacks.base import ATTACKS, Attack, Outcome, Scene
from client_app.attacks.labels import flipped
from client_app.losses.base import expect


@ATTACKS.register("small-loss")
@dataclass(frozen=True)
class SmallLoss(Attack):
    """Make consistent wrong labels look easy, so that filters by loss keep them and filters by distance see nothing.

    A filter by loss takes what has a small loss for right: clients with a small mean loss, or a client's examples with
    a small loss under the global model. In every round each hostile client

    1. trains honestly, and keeps the length of that update and its training loss;
    2. trains again from the received model, on labels that are all wrong in the same way, class y as (y + 1) mod K, for
       ``effort`` times as many epochs, until these labels have a small loss;
    3. sends the second update with the length of the first, and reports the training loss of the first.

    So the server sees an update of the usual length from a client with a low loss. If the model follows, the wrong
    labels of honest clients that are wrong in the same way (pair noise) get a small loss too. Whether small-loss
    filters withstand this is an open question: it is raised, not published as an attack.
    """

    effort: int = 3

    def __post_init__(self) -> None:
        expect(self.effort >= 1, f"effort = {self.effort}: must be at least 1")

    def act(self, scene: Scene) -> Outcome:
        """Return the update towards wrong labels, dressed as an honest one."""
        honest = scene.train(scene.data, 1)
        wrong = flipped(scene.data.labels, scene.data.num_classes, "pair", scene.draws)
        taught = scene.train(replace(scene.data, labels=wrong), self.effort)
        length = torch.linalg.vector_norm(taught.update)
        factor = torch.linalg.vector_norm(honest.update) / length if length > 0 else 1.0
        return replace(taught, update=factor * taught.update, metrics=honest.metrics, state=honest.state)
