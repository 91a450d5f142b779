"""FedRN's server: scores by hand, who is sent what, memory and its state, and what is said before the start."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord

from strategies.aggregators import build_aggregator
from strategies.fedrn import FedRN, KnownClient, cosine, neighbour_scores
from strategies.validation import RoundReport, Update
from tasks.extra_arrays import ExtraArray
from tasks.protocol import Arrays
from tests.messages import MODEL, answer, record

LOGITS = {1: [1.0, 0.0], 2: [1.0, 1.0], 3: [0.0, 1.0], 7: [-1.0, 0.0]}
EXPERTISE = {1: 0.5, 2: 0.9, 3: 0.7, 7: 0.6}
EXTRAS = {"extra/expertise": np.array(0.0), "extra/probe-logits": np.zeros(2, np.float32)}


class Grid:
    """Four clients."""

    def get_node_ids(self) -> list[int]:
        return [*LOGITS]


def strategy(**options: Any) -> FedRN:
    declared = [ExtraArray("expertise", (), "float64"), ExtraArray("probe-logits", (2,))]
    aggregator = build_aggregator("mean", "", "")
    return FedRN(aggregator, buffers=("running_var",), extra_arrays=declared, **{"warmup_rounds": 1} | options)


def known() -> dict[int, KnownClient]:
    return {
        client: KnownClient({"weight": np.full((2, 2), client, np.float32)}, EXPERTISE[client], np.array(logits))
        for client, logits in LOGITS.items()
    }


def messages(of: FedRN, server_round: int) -> dict[int, Any]:
    sent = of.configure_train(server_round, record(MODEL | EXTRAS), ConfigRecord(), Grid())  # type: ignore[arg-type]
    return {message.metadata.dst_node_id: message for message in sent}


def test_the_scores_are_the_published_ones():
    found = neighbour_scores(1, known(), 0.6)
    expertise = {client: (value - 0.5) / 0.4 for client, value in EXPERTISE.items()}
    similarity = {1: 1.0, 2: (0.5**0.5 + 1) / 2, 3: 0.5, 7: 0.0}  # cosines 1, 0.7071, 0 and -1
    assert found == pytest.approx({one: 0.6 * expertise[one] + 0.4 * similarity[one] for one in LOGITS})
    assert neighbour_scores(1, known(), 1.0)[2] == 1
    alike = {client: KnownClient({}, 0.5, np.zeros(2)) for client in (1, 2)}
    assert neighbour_scores(1, alike, 0.5) == {1: 1.0, 2: 1.0}  # no difference, and nobody without weight
    assert cosine(np.zeros(2), np.ones(2)) == 0


def test_a_client_is_sent_its_best_neighbours_and_never_itself():
    own = strategy(neighbours=2)
    own.known = known()
    given = own.given_to(2)
    scores = neighbour_scores(2, own.known, 0.5)
    best = sorted((one for one in scores if one != 2), key=lambda one: -scores[one])[:2]
    assert given["given/scores"].tolist() == [scores[2], *(scores[one] for one in best)]
    for number, client in enumerate(best, 1):
        assert (given[f"given/network-{number}/weight"] == client).all()
    assert len(given) == 3


def test_neighbours_come_after_the_warm_up_to_clients_that_are_known():
    own = strategy(neighbours=1)
    own.known = {client: one for client, one in known().items() if client != 7}
    assert all(len(message.content["arrays"]) == 5 for message in messages(own, 1).values())
    later = messages(own, 2)
    sizes = {client: len(message.content["arrays"]) for client, message in later.items()}
    assert sizes == {1: 7, 2: 7, 3: 7, 7: 5}
    assert [*own._validator.sent] == [*MODEL, *EXTRAS]  # what is given does not come back
    alone = strategy(neighbours=0)
    alone.known = known()
    assert [*messages(alone, 2)[1].content["arrays"]][5:] == ["given/scores"]


def update(own: FedRN, client: int, arrays: Arrays) -> Update[Any]:
    read = Update(client, arrays, 10, {"train-loss": 1.0}, answer(client))
    return Update(client, own.keep(read), 10, {"train-loss": 1.0}, answer(client))


def test_the_last_model_of_each_client_is_remembered_as_it_was_sent():
    own = strategy()
    messages(own, 1)
    sent = {name: array + array.dtype.type(1) for name, array in MODEL.items()}
    described = {"extra/expertise": np.array(7.0), "extra/probe-logits": np.array([1, 2], np.float32)}
    arrays, _ = own.aggregate_updates(1, [update(own, 3, sent | described)], RoundReport())
    assert arrays is not None
    assert [*arrays] == [*MODEL, *EXTRAS]
    for name, array in MODEL.items():
        kept = own.known[3].model[name]
        assert np.array_equal(kept, sent[name])
        assert kept.dtype == array.dtype
    assert own.known[3].expertise == 1  # a claim of 700 % is one of 100 %
    assert own.known[3].logits.tolist() == [1, 2]
    again = strategy()
    again.load_state_dict(own.state_dict())
    assert again.known.keys() == {3}
    assert np.array_equal(again.known[3].model["weight"], sent["weight"])


@pytest.mark.parametrize("options", [{"neighbours": -1}, {"warmup_rounds": -1}, {"expertise_weight": 1.5}])
def test_arguments_out_of_range_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match="must be"):
        strategy(**options)
