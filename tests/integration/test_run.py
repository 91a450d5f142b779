import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from flwr.app import Error, Message
from safetensors.numpy import load_file

from server_app.callbacks import Callback, CallbackError
from server_app.evaluation import CentralEvaluation
from server_app.registration import FederationError
from server_app.state import RunState
from server_app.storage.checkpoints import Checkpoint, CheckpointFolder
from server_app.storage.class_files import BEST, LAST, read_classes
from server_app.validation.config import check
from tasks.base import Examples, evaluate
from tasks.config import DEFAULTS, ConfigError
from tasks.images import Digits
from tests.integration.conftest import QUICK, Play

CHECKPOINTS = {"manifest.json", "last.safetensors", "previous.safetensors", "best.safetensors"}


def test_a_run_learns_and_leaves_a_complete_directory(play: Play):
    called = {"run__name": "pilot", "run__tags": "short, pilot", "run__note": "the first <b>"}
    run = play(num_server_rounds=8, loss__name="ce", noise__name="none", train__epochs=2, **called)
    assert run.path.name.endswith("-pilot")
    said = [run.status[name] for name in ("label", "name", "tags", "note")]
    assert said == ["pilot", "pilot", ["short", "pilot"], "the first <b>"]
    assert "the first &lt;b&gt;" in (run.path / "report.html").read_text()
    assert run.metrics[0]["accuracy"] < 0.35
    assert run.metrics[-1]["accuracy"] > 0.75
    assert [line["round"] for line in run.metrics] == list(range(9))
    assert run.status["status"] == "completed"
    assert run.status["start_seconds"] > 0
    expected = {"config.toml", "versions.json", "status.json", "metrics.jsonl", "clients.jsonl", "report.html"}
    expected |= {f"{kind}-{model}.csv" for kind in ("confusion", "per-class") for model in ("last", "best")}
    assert expected | {"results.json"} <= {path.name for path in run.path.iterdir()}
    for model, server_round in ((LAST, 8), (BEST, run.status["best_round"])):
        table = read_classes(run.path, model)
        assert table is not None
        assert table.confusion is not None
        assert table.round == server_round
        assert table.confusion.trace() / table.confusion.sum() == run.metrics[server_round]["accuracy"]
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == CHECKPOINTS
    registration = [line for line in run.lines("clients.jsonl") if line["round"] == 0]
    assert [line["client"] for line in registration] == [0, 1, 2, 3]
    assert sum(line["examples"] for line in registration) == 1293  # 144 of 1437 are held out
    assert {line["noise_rate"] for line in registration} == {0.0}
    later = [line for line in run.lines("clients.jsonl") if line["round"] == 3]
    assert sum(line["weight"] for line in later) == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_run_bit_for_bit_and_another_seed_another_one(play: Play):
    first, second, other = play(), play(), play(seed=2)
    assert first.metrics == second.metrics
    assert first.weights() == second.weights()
    assert first.metrics != other.metrics

    def registration(run: Any) -> list[Any]:
        return [(line["examples"], line["noise_rate"]) for line in run.lines("clients.jsonl") if line["round"] == 0]

    assert registration(first) == registration(second) != registration(other)


def test_the_model_of_a_run_is_an_average_and_clients_train_the_newest_one(play: Play):
    def last(**settings: Any) -> Checkpoint:
        return CheckpointFolder(play(**settings).path).newest()[0]

    newest = [last(num_server_rounds=rounds, strategy__ema=0.0).model for rounds in (1, 2, 3)]
    checkpoint = last(strategy__ema=0.5)
    assert {name: array.tobytes() for name, array in checkpoint.trained.items()} == {
        name: array.tobytes() for name, array in newest[-1].items()
    }
    for name, array in checkpoint.model.items():
        first, second, third = (model[name].astype(np.float64) for model in newest)
        np.testing.assert_allclose(array, (first / 5 + 4 * second / 5) / 3 + 2 * third / 3, atol=1e-6)


def test_another_seed_changes_who_is_sampled(play: Play):
    def sampled(seed: int) -> list[tuple[int, int]]:
        run = play(seed=seed, federation__fraction_train=0.5, num_server_rounds=5, federation__min_replies=1)
        return [(line["round"], line["client"]) for line in run.lines("clients.jsonl") if line["round"]]

    assert sampled(1) == sampled(1) != sampled(2)
    assert len(sampled(1)) == 5 * 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy__name": "flower-fedadam", "strategy__args": "eta = 0.05"},
        {"strategy__name": "flower-fedavgm", "strategy__args": "server_momentum = 0.9"},
        {"method__name": "fedprox", "federation__fraction_train": 0.5},
        {"method__name": "tests.integration.counting:Counting"},
        {
            "model__name": "resnet18",
            "partition__args": "alpha = 100.0",
            "task__name": "tests.integration.counting:FewDigits",
        },
    ],
    ids=["robust", "fedadam", "fedavgm", "fedprox", "stateful method", "batchnorm"],
)
def test_three_rounds_and_three_more_equal_six(play: Play, settings: dict[str, Any]):
    settings = {"run__early_stopping": 100, **settings}
    whole = play(num_server_rounds=6, **settings)
    half = play(num_server_rounds=3, **settings)
    resumed = play(num_server_rounds=6, run__resume=str(half.path), **settings)
    assert resumed.path == half.path
    assert resumed.metrics == whole.metrics
    assert resumed.lines("clients.jsonl") == whole.lines("clients.jsonl")
    assert resumed.weights() == whole.weights()


def test_a_run_that_ended_in_its_first_round_is_resumed_from_the_initial_model(play: Play, tmp_path: Path):
    def crash(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            raise KeyboardInterrupt
        return reply

    with pytest.raises(KeyboardInterrupt):
        play(crash)
    (broken,) = tmp_path.iterdir()
    resumed = play(run__resume=str(broken))
    whole = play()
    assert resumed.metrics == whole.metrics
    assert resumed.lines("clients.jsonl") == whole.lines("clients.jsonl")
    assert resumed.weights() == whole.weights()


def test_a_cosine_schedule_without_an_end_of_its_own_cannot_be_lengthened(play: Play):
    half = play(train__schedule="cosine")
    with pytest.raises(ConfigError, match=r"start with train\.schedule-rounds set"):
        play(train__schedule="cosine", num_server_rounds=6, run__resume=str(half.path))


def test_a_resumed_run_keeps_its_settings(play: Play):
    half = play()
    with pytest.raises(ConfigError, match=r"train.epochs = 2, but the run to resume was started with 1"):
        play(num_server_rounds=6, run__resume=str(half.path), train__epochs=2)


def test_a_run_can_be_resumed_after_a_crash_between_two_checkpoints(play: Play):
    whole = play(num_server_rounds=5, run__checkpoint_every=2)

    def crash(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.group_id == "4" and message.metadata.message_type == "train":
            raise KeyboardInterrupt
        return reply

    runs = Path(whole.path).parent
    with pytest.raises(KeyboardInterrupt):
        play(crash, num_server_rounds=5, run__checkpoint_every=2)
    (broken,) = [path for path in runs.iterdir() if path != whole.path]
    assert len((broken / "metrics.jsonl").read_text().splitlines()) == 4
    resumed = play(num_server_rounds=5, run__checkpoint_every=2, run__resume=str(broken))
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()


@pytest.mark.parametrize(
    "name", ["fedavg", "fedmedian", "krum", "fedadam", "fedyogi", "fedtrimmedavg", "multikrum", "qfedavg"]
)
def test_stock_strategies_of_flower_run_unmodified(play: Play, name: str):
    args = {"fedadam": "eta = 0.05", "fedyogi": "eta = 0.05", "qfedavg": "client_learning_rate = 0.1"}
    loss = {"qfedavg": ', train_loss_key = "train-loss"'}
    given = args.get(name, "") + loss.get(name, "")
    run = play(strategy__name=f"flower-{name}", strategy__args=given, strategy__ema=0.0, loss__name="ce")
    assert run.status["status"] == "completed"
    assert run.metrics[-1]["accuracy"] > run.metrics[0]["accuracy"]
    assert np.isfinite(run.metrics[-1]["loss"])


def test_a_strategy_by_import_path_runs_behind_the_guard(play: Play):
    def poison(client: int, message: Message, reply: Message) -> Message:
        if client == 2 and reply.has_content() and "arrays" in reply.content:
            reply.content["metrics"]["num-examples"] = -1  # type: ignore[index]
        return reply

    run = play(
        poison, strategy__name="examples.norm_clipping:NormClipping", strategy__args="factor = 1.0", loss__name="ce"
    )
    assert run.metrics[-1]["accuracy"] > run.metrics[0]["accuracy"]
    assert [line["quarantined"] for line in run.metrics] == [0, 1, 1, 1]
    reasons = {line["quarantine"] for line in run.lines("clients.jsonl") if line.get("client") == 2 and line["round"]}
    assert reasons == {"num-examples must be a positive whole number, got -1"}


def test_silent_and_failing_clients_cost_their_reply_not_the_run(play: Play):
    def fail(client: int, message: Message, reply: Message) -> Message | None:
        if message.metadata.message_type != "train" or client < 2:
            return reply
        return None if client == 2 else reply_with_error(message)

    def reply_with_error(message: Message) -> Message:

        return Message(Error(0, "The actor died unexpectedly"), reply_to=message)

    run = play(fail, federation__min_replies=2)
    assert run.status["status"] == "completed"
    assert [line["replies"] for line in run.metrics[1:]] == [2, 2, 2]
    assert (run.path / "report.html").read_text().count("The actor died unexpectedly") >= 1


def test_too_few_replies_end_the_run_with_an_error_and_a_report(play: Play, tmp_path: Path):
    def silence(client: int, message: Message, reply: Message) -> Message | None:
        return None if message.metadata.message_type == "train" else reply

    with pytest.raises(FederationError, match="rounds in a row were skipped"):
        play(silence, num_server_rounds=9, federation__max_skipped_rounds=1)
    (path,) = tmp_path.iterdir()
    status = json.loads((path / "status.json").read_text())
    assert status["status"] == "failed"
    assert "no reply in time" in status["reason"]
    assert "no reply in time" in (path / "report.html").read_text()


def test_a_skipped_round_leaves_the_model_as_it_is(play: Play):
    def silent_once(client: int, message: Message, reply: Message) -> Message | None:
        return None if message.metadata.group_id == "2" and message.metadata.message_type == "train" else reply

    run = play(silent_once)
    assert [line.get("skipped") for line in run.metrics] == [None, False, True, False]
    assert run.metrics[1]["loss"] == run.metrics[2]["loss"] != run.metrics[3]["loss"]


def test_early_stopping_and_the_best_model(play: Play):
    run = play(num_server_rounds=30, run__early_stopping=2, train__learning_rate=1e-12, train__momentum=0.0)
    assert run.status["status"] == "completed"
    assert "has not improved for 2 evaluations" in run.status["reason"]
    assert [line["round"] for line in run.metrics] == [0, 1, 2]
    assert load_file(run.path / "checkpoints" / "best.safetensors").keys()
    assert run.status["best_round"] == 0


class ReversedTest(Digits):
    """Digits whose test labels are all wrong: the better a model is, the worse it looks on them."""

    def test_examples(self) -> Examples:
        test = super().test_examples()
        return Examples(test.features, (test.labels + 5) % 10)


def test_what_is_best_is_chosen_on_validation_data_whatever_the_test_data_says(play: Play):
    run = play(
        num_server_rounds=6,
        run__early_stopping=3,
        run__monitor="loss",
        task__name=f"{__name__}:ReversedTest",
        noise__name="none",
        loss__name="ce",
        train__epochs=2,
    )

    best = run.status["best_round"]
    losses = [line["validation_loss"] for line in run.metrics]
    assert best == int(np.argmin(losses)) > 3
    assert [line["round"] for line in run.metrics] == list(range(7))  # test data alone would have stopped it in round 3
    assert int(np.argmin([line["loss"] for line in run.metrics])) < 3
    assert int(np.argmax([line["accuracy"] for line in run.metrics])) != best
    model = load_file(run.path / "checkpoints" / "best.safetensors")
    again = CentralEvaluation(check({**DEFAULTS, **QUICK, "task.name": f"{__name__}:ReversedTest"})).measure(model)
    assert again["validation_loss"] == pytest.approx(losses[best])


def test_without_validation_data_no_model_is_the_best_and_nothing_stops_early(play: Play):
    run = play(evaluate__validation=0.0)

    assert run.status["best_round"] is None
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == CHECKPOINTS - {"best.safetensors"}
    assert not [name for name in run.metrics[-1] if name.startswith("validation_")]
    assert sum(line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0) == 1437
    with pytest.raises(ConfigError, match=r"no examples are held out to stop by.*set evaluate.validation to a share"):
        play(evaluate__validation=0.0, run__early_stopping=2)


def test_a_run_whose_best_model_test_data_chose_forgets_it_when_it_goes_on(play: Play):
    run = play(evaluate__validation=0.0)
    config = run.path / "config.toml"
    config.write_text(config.read_text().replace("validation = 0.0\n", ""))  # as it was before there was the setting
    folder = CheckpointFolder(run.path)
    saved, _ = folder.newest()
    folder.save(replace(saved, progress={**saved.progress, "best_round": 1, "best_value": 0.9}))

    resumed = play(evaluate__validation=0.0, run__resume=str(run.path), num_server_rounds=4)

    assert len(resumed.metrics) == 5
    assert resumed.status["best_round"] is None


def test_sites_that_hold_out_their_own_examples_choose_the_best_model(play: Play, monkeypatch: pytest.MonkeyPatch):
    measured: list[int] = []

    def counted(model: Any, task: Any, examples: Examples, *rest: Any) -> dict[str, float]:
        measured.append(len(examples))
        return evaluate(model, task, examples, *rest)

    monkeypatch.setattr("client_app.handlers.evaluate", counted)
    run = play(
        evaluate__validation_at="sites", federation__fraction_evaluate=1.0, run__monitor="macro-f1", noise__name="none"
    )

    shares = [line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0]
    assert 1437 * 0.89 < sum(shares) < 1437 * 0.91
    assert sum(measured) == 3 * (1437 - sum(shares))  # in each round, all that nobody trains on
    values = [line["validation_macro-f1"] for line in run.metrics[1:]]  # before training no site has a model
    assert "validation_macro-f1" not in run.metrics[0]
    assert run.status["best_round"] == 1 + int(np.argmax(values))
    assert not [name for name in run.metrics[-1] if name.startswith("clients_")]


def test_clients_evaluate_when_asked(play: Play):
    run = play(federation__fraction_evaluate=1.0, noise__name="none", loss__name="ce")
    assert 0.0 < run.metrics[-1]["clients_accuracy"] <= 1.0


def test_integer_buffers_stay_integers(play: Play):
    run = play(
        model__name="resnet18",
        partition__args="alpha = 100.0",
        task__name="tests.integration.counting:FewDigits",
        num_server_rounds=1,
    )
    arrays = load_file(run.path / "checkpoints" / "last.safetensors")
    counters = [array for name, array in arrays.items() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(array.dtype == np.int64 and array > 0 for array in counters)
    assert all((array >= 0).all() for name, array in arrays.items() if name.endswith("running_var"))


def test_two_nodes_with_the_same_identity_are_refused(play: Play):
    def same(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query.identity":
            reply.content["metrics"]["client"] = 0  # type: ignore[index]
        return reply

    with pytest.raises(FederationError, match="both say that they are client 0"):
        play(same)


def test_metrics_reach_tensorboard(play: Play):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = play(run__callbacks="tensorboard = {}", num_server_rounds=2)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    expected = [(line["round"], pytest.approx(line["accuracy"])) for line in run.metrics]
    assert [(event.step, event.value) for event in events.Scalars("accuracy")] == expected


class Tampering(Callback):
    """Changes what it gets."""

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> None:
        """Take the round's number away."""
        metrics.pop("round")


class Watching(Callback):
    """Leaves the accuracy of each round in a class attribute; stops, answers wrongly or fails after round 2."""

    seen: ClassVar[list[int]] = []

    def __init__(self, then: Literal["stop", "answer wrongly", "fail"]) -> None:
        self.then = then

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> Any:
        """Note the round."""
        self.seen.append(metrics["round"])
        if state.server_round < 2:
            return None
        if self.then == "fail":
            raise KeyError("colour")
        return "enough" if self.then == "stop" else True


def watching(then: str) -> str:
    Watching.seen.clear()
    return f'"{__name__}:Tampering" = {{}}, "{__name__}:Watching" = {{ then = "{then}" }}'


def test_a_chosen_callback_sees_every_round_and_may_stop_the_run(play: Play):
    run = play(run__callbacks=watching("stop"), num_server_rounds=5)
    assert Watching.seen == [0, 1, 2]
    assert [line["round"] for line in run.metrics] == [0, 1, 2]
    assert run.status["status"] == "completed"
    assert run.status["reason"] == f"{__name__}:Watching: enough"


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("fail", r"KeyError: 'colour' \(test_run.py, line \d+\)"),
        ("answer wrongly", "on_round_end must return a text that says why to stop, or an empty one to go on, got True"),
    ],
)
def test_a_callback_that_fails_ends_the_run_which_can_go_on_without_it(
    then: str, reason: str, play: Play, tmp_path: Path
):
    with pytest.raises(
        CallbackError, match=rf"callback '{__name__}:Watching', round 2: {reason}; what was recorded"
    ) as e:
        play(run__callbacks=watching(then))
    [broken] = tmp_path.iterdir()
    assert str(e.value).endswith(f"take it out of run.callbacks, then go on with run.resume={broken}")
    status = json.loads((broken / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("failed", f"CallbackError: {e.value}")
    resumed, whole = play(run__resume=str(broken)), play()
    assert resumed.status["resumed_after"] == 2
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()


class NotReady(Callback):
    """Cannot start."""

    def on_run_start(self, state: RunState) -> None:
        """Miss what it needs."""
        raise ConnectionError("no tracker at port 5000")


def test_a_callback_that_cannot_start_ends_the_run_before_any_training(play: Play, tmp_path: Path):
    with pytest.raises(CallbackError, match=r"round 0: ConnectionError: no tracker at port 5000 .*then start again$"):
        play(run__callbacks=f'"{__name__}:NotReady" = {{}}')
    [broken] = tmp_path.iterdir()
    assert not (broken / "metrics.jsonl").exists()


def test_a_run_whose_clients_all_die_fails(play: Play):
    def all_die(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type != "train":
            return reply
        return Message(Error(0, "<class 'ray.exceptions.ActorDiedError'>"), reply_to=message)

    with pytest.raises(FederationError, match=r"no client is left|rounds in a row were skipped"):
        play(all_die, federation__num_clients=2, federation__min_replies=1, partition__args="alpha = 100.0")


def test_a_run_in_half_precision_learns_as_well_and_keeps_its_model_in_full(play: Play):
    options: dict[str, Any] = {
        "num_server_rounds": 4,
        "loss__name": "ce",
        "noise__name": "none",
        "model__name": "resnet8",
    }
    full = play(**options)
    half = play(**options, federation__wire="float16")
    assert half.metrics[-1]["accuracy"] == pytest.approx(full.metrics[-1]["accuracy"], abs=0.05)
    assert all(0 < line["train_wire_error"] < 2**-11 for line in half.metrics[1:])
    assert "train_wire_error" not in full.metrics[-1]
    saved = load_file(half.path / "checkpoints" / "last.safetensors")
    again = load_file(full.path / "checkpoints" / "last.safetensors")
    assert {name: array.dtype for name, array in saved.items()} == {name: array.dtype for name, array in again.items()}
    assert "Wire error" in (half.path / "report.html").read_text()
    go_on = play(**options | {"num_server_rounds": 2}, federation__wire="float16")
    config = {"num_server_rounds": 4, "run__resume": str(go_on.path), "federation__wire": "float16"}
    assert play(**options | config).weights() == half.weights()


def test_half_precision_after_clipping_at_the_client_is_refused(play: Play):
    options = {"privacy__mode": "client-fixed", "strategy__aggregator": "mean", "strategy__weighting": "uniform"}
    with pytest.raises(ConfigError, match="rounding to float16 may lengthen"):
        play(**options, federation__wire="float16")


def test_a_median_that_does_not_converge_is_in_the_progress_and_the_record(
    play: Play, capsys: pytest.CaptureFixture[str]
):
    run = play(strategy__aggregator_args="max_iterations = 1")
    said = "the coordinate-wise median took its place"
    assert capsys.readouterr().out.count(said) == len(run.metrics) - 1
    assert all(said in line["remarks"][0] for line in run.metrics[1:])
    assert "remarks" not in run.metrics[0]
    assert run.weights() == play(strategy__aggregator="median", strategy__aggregator_args="weighted = true").weights()
    assert (run.path / "report.html").exists()
