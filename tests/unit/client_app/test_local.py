"""Local training of one round: what a loss learns itself is kept in the client's state, apart from the method's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client_app.local import train_locally
from client_app.losses import TLoss, build
from client_app.methods import ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import train
from server_app.validation.config import check, validate
from tasks.client_data import client_dataset, load_task
from tasks.config import DEFAULTS, ConfigError
from tasks.settings import Settings
from tests.site_data import ARGS, image_folder, image_masks

CPU = torch.device("cpu")
SEEN: list[State] = []


class Counting(ClientMethod):
    """Counts its rounds in its state, and notes what it was given."""

    def init_state(self, data: object) -> State:
        return {"rounds": np.zeros(1)}

    def fit(self, model: torch.nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        SEEN.append(state)
        result = train(model, context, round_config, context.objective)
        return FitResult(result.metrics, {"rounds": state["rounds"] + 1})


def settings(folder: Path, **changes: object) -> Settings:
    masks = {
        "task.name": "image-masks",
        "task.args": ARGS["image-masks"],
        "task.data-path": str(image_masks(folder, 12)),
        "model.args": "width = 8, depth = 1",
        "loss.name": "t-loss",
        "partition.name": "iid",
        "partition.args": "",
        "federation.num-clients": 2,
        "train.epochs": 1,
        "train.batch-size": 16,  # one step a round
        "train.device": "cpu",
    }
    return check({**DEFAULTS, **masks, **changes})


def rounds(config: Settings, count: int) -> list[State]:
    """Train client 0 for some rounds from the same model; return its state after each."""
    states: list[State] = []
    for number in range(1, count + 1):
        torch.manual_seed(0)
        model = load_task(config.task).build_model(config.model.name, config.model.args)
        data = client_dataset(config, 0).data
        asked = RoundConfig(number, 0.1, (1, 0, number))
        states.append(train_locally(model, data, config, asked, states[-1] if states else None, CPU).state)
    return states


def test_a_client_keeps_the_degrees_of_freedom_that_it_learned(tmp_path: Path) -> None:
    values = [state["loss.log_nu"].item() for state in rounds(settings(tmp_path), 3)]
    assert abs(np.diff([1.0, *values])) == pytest.approx(1e-3, abs=1e-6)  # each round goes on; Adam begins by its rate
    data = client_dataset(settings(tmp_path), 0).data
    torch.manual_seed(0)
    model = load_task(settings(tmp_path).task).build_model("auto", "width = 8, depth = 1")
    log_nu = torch.ones((), requires_grad=True)
    logits = model(load_task(settings(tmp_path).task).prepare(data.features))
    (slope,) = torch.autograd.grad(TLoss(log_nu)(logits, torch.from_numpy(data.labels)).mean(), log_nu)
    assert values[0] == pytest.approx(1 - 1e-3 * np.sign(slope.item()), abs=1e-6)


def test_a_fixed_parameter_leaves_no_state(tmp_path: Path) -> None:
    assert rounds(settings(tmp_path, **{"loss.args": "nu_rate = 0"}), 1) == [{}]
    assert build("t-loss", 2, "nu_rate = 0").loss.log_nu == 1.0


def test_a_method_sees_its_own_state_alone(tmp_path: Path) -> None:
    config = settings(tmp_path, **{"method.name": f"{__name__}:Counting"})
    SEEN.clear()  # the check has tried the method
    states = rounds(config, 2)
    assert [set(state) for state in SEEN] == [{"rounds"}, {"rounds"}]
    assert [state["rounds"].item() for state in states] == [1, 2]
    assert all("loss.log_nu" in state for state in states)


def test_a_label_per_image_is_refused_before_the_start(tmp_path: Path) -> None:
    flat = {**DEFAULTS, "task.name": "image-folder", "task.args": ARGS["image-folder"], "loss.name": "t-loss"}
    flat |= {"task.data-path": str(image_folder(tmp_path)), "model.name": "mlp", "loss.args": "nu_rate = -1.0"}
    with pytest.raises(ConfigError, match="nu_rate must be at least 0, got -1"):
        validate(flat)
    with pytest.raises(ConfigError, match="loss t-loss needs a label per pixel, and the task image-folder has none"):
        validate({**flat, "loss.args": ""})


def test_a_warm_up_adds_what_is_left_of_it_in_that_round() -> None:
    """A warm-up of five rounds of one pass: cross-entropy weighs 2 in round 1, 1.24 in round 3, 0.1 from round 6 on."""
    trained = {}
    for warmup, alpha in ((5.0, 0.1), (0.0, 2.0), (0.0, 1.24), (0.0, 0.1)):
        flat = {"train.epochs": 1, "train.device": "cpu", "loss.args": f"alpha = {alpha}"}
        config = check({**DEFAULTS, **flat, "loss.warmup": warmup})
        data = client_dataset(config, 0).data
        for number in (1, 3, 6):
            torch.manual_seed(0)
            model = load_task(config.task).build_model(config.model.name, config.model.args)
            train_locally(model, data, config, RoundConfig(number, 0.1, (1, 0, number)), None, CPU)
            weights = torch.cat([weight.flatten() for weight in model.state_dict().values()])
            trained[warmup or alpha, number] = weights
    for number, alpha in ((1, 2.0), (3, 1.24), (6, 0.1)):
        found = trained[5.0, number]
        assert torch.allclose(found, trained[alpha, number], atol=1e-5)
        assert not torch.allclose(found, trained[0.1 if number < 6 else 2.0, number], atol=1e-3)
