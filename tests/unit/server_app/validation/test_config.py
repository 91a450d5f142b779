import pytest

from server_app.app import overrides
from server_app.validation.config import check, validate
from tasks.config import DEFAULTS, ConfigError, variant_config, variants
from tests.issues import warning_lines


def errors(**changes: object) -> str:
    flat = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    with pytest.raises(ConfigError) as caught:
        validate(flat)  # type: ignore[arg-type]
    return str(caught.value)


def test_every_kind_of_mistake_is_reported_at_once():
    text = errors(
        federation__num_clients=0,
        federation__fraction_train=1.5,
        task__name="cifar-10",
        task__data_path="/nowhere",
        model__name="resnet19",
        loss__name="ance",
        loss__args="",
        noise__rates_args="max = 1.5",
        partition__args="alpha = 0.0",
        method__args="mu = 1.0",
        strategy__aggregator="krumm",
        strategi__name="x",
    )
    for part in (
        "10 errors in the configuration",
        "federation.num-clients = 0: must be at least 1",
        "federation.fraction-train = 1.5: must be above 0.0 and at most 1.0",
        "unknown key 'strategi.name'; did you mean 'strategy.name'?",
        "/nowhere/cifar-10-batches-py",
        "unknown model 'resnet19'; did you mean 'resnet18'?",
        "unknown loss 'ance'",
        "noise.rates: noise-rate distribution 'linear'",
        "alpha must be a number above 0",
        "client method 'sgd': unknown argument 'mu' (its arguments: none)",
        "unknown aggregator 'krumm'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"federation__num_clients": 2000},
            "or more examples (evaluate.validation holds out 144 of 1437 examples; 0 = none)",
        ),
        ({"federation__min_replies": 21}, "federation.min-replies = 21: at most the number of clients that train"),
        ({"federation__min_replies": 5, "federation__fraction_train": 0.1}, "that train in a round, 2"),
        ({"run__resume": "/no/such/run"}, "expected a run directory, but /no/such/run/config.toml"),
        ({"run__callbacks": "mlfow = {}"}, "run.callbacks: unknown callback 'mlfow'"),
        (
            {"partition__name": "iid", "partition__args": DEFAULTS["partition.args"]},
            "partition.args still holds the arguments of dirichlet",
        ),
        (
            {"noise__rates": "constant", "noise__rates_args": DEFAULTS["noise.rates-args"]},
            "noise.rates-args still holds the arguments of linear",
        ),
        (
            {"method__name": "collections:Counter"},
            "expected a subclass of client_app.methods.base.ClientMethod, got the class Counter",
        ),
        ({"variants": "'../x' = { seed = 1 }"}, "a name is up to 100 letters, digits"),
        ({"loss__colour": 1}, "unknown key 'loss.colour'"),
        ({"foo": 1}, "all keys are in pyproject.toml"),
        ({"strategy__name": "no_such_package:Thing"}, "there is no module 'no_such_package'"),
        ({"task__args": "train_samples = 5"}, "task 'digits'"),
        ({"variants": "a = { loss.name = 'x' }\nb = { seed = -1 }"}, "variant b: seed = -1: must be at least 0"),
    ],
)
def test_a_mistake_says_what_is_wrong(changes: dict[str, object], message: str):
    assert message in errors(**changes)


def test_aggregator_pre_aggregators_and_server_optimizer_are_checked_at_once():
    text = errors(
        strategy__aggregator="krum",
        strategy__aggregator_args='f = "4"',
        strategy__pre_aggregators="nmm = {}",
        strategy__server_optimizer="fedadm",
    )
    for part in (
        "3 errors",
        "argument f must be a whole number",
        "unknown pre-aggregator 'nmm'",
        "unknown server optimizer",
    ):
        assert part in text


@pytest.mark.parametrize(("clients", "said"), [(6, True), (7, False)])
@pytest.mark.parametrize(("steps", "per_point"), [("", 1), ("bucketing = { size = 2 }", 2)])
def test_an_aggregator_that_withstands_nobody_is_warned_about(clients: int, said: bool, steps: str, per_point: int):
    flat = {
        "federation.num-clients": clients * per_point,
        "strategy.aggregator": "bulyan",
        "strategy.pre-aggregators": steps,
    }
    warning = "bulyan withstands no hostile update: the largest f for 6 updates is 0"
    assert (warning in warning_lines(flat)) == said


@pytest.mark.parametrize(
    ("method", "strategy", "aggregator", "said"),
    [
        ("masked-optim", "robust", "mean", ["method masked-optim trains all clients on their given labels"]),
        ("fedelc", "flower-fedavg", "geometric-median", ["method fedelc trains all clients on their given labels"]),
        ("fednoro", "robust", "distance-aware", ["method fednoro trains all clients", "distance-aware is the mean"]),
        ("sgd", "robust", "distance-aware", ["the aggregator distance-aware is the mean"]),
        ("sgd", "noise-partition", "mean", ["neither the method sgd nor the aggregator mean"]),
        ("fedcorr", "robust", "mean", ["method fedcorr corrects labels only where the strategy asks"]),
        ("sgd", "noise-partition", "distance-aware", []),
        ("masked-optim", "noise-partition", "geometric-median", []),
        ("fednoro", "tests.integration.fixed_roles:FixedRoles", "mean", []),
        ("tests.integration.fixed_roles:Answering", "noise-partition", "mean", []),
    ],
)
def test_roles_that_are_not_read_or_not_given(method: str, strategy: str, aggregator: str, said: list[str]):
    flat = {
        "method.name": method,
        "strategy.name": strategy,
        "strategy.aggregator": aggregator,
        "num-server-rounds": 60,
    }
    lines = warning_lines(flat)
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


def test_losses_that_need_class_counts_pass_the_check():
    assert check({"loss.name": "la-ce"}).loss.name == "la-ce"


def test_warnings_say_what_is_odd_but_allowed():
    flat = {"train.optimizer": "adam", "train.momentum": 0.5, "noise.rates-args": "max = 0.95"}
    lines = warning_lines(flat)
    assert lines[0] == "train.momentum has no effect: only SGD has momentum"
    assert any("rate 0.95" in line for line in lines[1:])
    assert warning_lines({}) == []


def test_default_arguments_that_are_left_out_are_said():
    (line,) = warning_lines({"partition.args": "alpha = 0.9"})
    assert line == (
        "partition.args = 'alpha = 0.9' leaves out a default argument, and dirichlet takes its own value for it: "
        "to keep it, write partition.args = 'alpha = 0.9, min_size = 20'"
    )
    assert warning_lines({"partition.args": "min_size = 10, alpha = 0.9"}) == []
    assert warning_lines({"partition.name": "iid", "partition.args": "min_size = 10"}) == []
    assert warning_lines({"partition.name": "iid"}) == [], "the default arguments are those of dirichlet"


def test_a_variant_is_laid_over_the_shared_settings():
    flat = {**DEFAULTS, "loss.name": "gce", "loss.args": "q = 0.3", "strategy.args": ""}
    flat["variants"] = (
        'a = { partition.args = "alpha = 0.9" }\nb = { loss.name = "ce", partition.args = "" }\n'
        'c = { loss.args = "q = 0.4", partition = { name = "iid" } }'
    )
    found = {name: variant_config(flat, changes) for name, changes in variants(flat).items()}
    chosen = ("partition.name", "partition.args", "loss.name", "loss.args")
    assert {name: [one[key] for key in chosen] for name, one in found.items()} == {
        "a": ["dirichlet", "alpha = 0.9, min_size = 20", "gce", "q = 0.3"],
        "b": ["dirichlet", "", "ce", ""],
        "c": ["iid", "", "gce", "q = 0.4"],
    }
    for name, changes in variants(flat).items():
        assert {**flat, **overrides(flat, changes)} == found[name], "what the clients are told"
