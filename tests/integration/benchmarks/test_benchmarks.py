"""The experiments and speed measurements under benchmarks/: what they compute, never how fast."""

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import anl_claims, cohorts, losses
from benchmarks.anl_runs import LOSSES, PUBLISHED, Case, Outcome, table
from benchmarks.ledger import Ledger
from client_app.losses import L1, EntropyOfMean, build
from client_app.optimizers import LocalOptimizer
from client_app.trainer import LocalData
from tasks.images import Cifar10
from tasks.models import MODELS, cnn8

CPU = torch.device("cpu")


def outcome(accuracy: float, wrong: float = 10.0) -> Outcome:
    return Outcome(accuracy, accuracy + 1, wrong, 40.0, 5.0)


def parsed(*extra: str) -> list[Case]:
    return anl_claims.cases(anl_claims.arguments(["--output", "x.csv", *extra]))


def test_the_full_schedule_is_the_papers():
    cases = parsed("--schedule", "full")
    assert len(cases) == 4 * 4 * 3
    assert {case.seed for case in cases} == {1, 2, 3}
    assert {(c.model, c.images, c.epochs, c.batch_size, c.learning_rate) for c in cases} == {
        ("cnn8", 50_000, 120, 128, 0.01)
    }
    expected = {"schedule": "cosine", "optimizer": "sgd", "momentum": 0.9, "clip_norm": 5.0, "augment": True}
    for case in cases:
        options = case.options()
        assert {key: getattr(options, key) for key in expected} == expected
        assert options.weight_decay == (0.0 if "anl" in case.loss else 1e-4)


def test_every_kind_of_labels_has_a_published_number_for_every_loss():
    assert PUBLISHED.keys() == anl_claims.LABELS.keys()
    assert all(len(numbers) == len(LOSSES) for numbers in PUBLISHED.values())


def test_the_objectives_carry_the_papers_constants():
    regularizers = {loss: build(loss, 10, preset="cifar-10").regularizers for loss in LOSSES}
    assert regularizers["ce"] == regularizers["nce+rce"] == ()
    assert regularizers["anl-ce"] == ((5e-5, L1()),)
    assert regularizers["anl-ce*"] == ((2.0, EntropyOfMean()), (5e-5, L1()))


def test_the_command_line_overrides_a_schedule():
    given = ["--labels", "clean", "--losses", "ce", "--seeds", "7", "--images", "40", "--epochs", "2"]
    (case,) = parsed("--schedule", "reduced", *given)
    reduced = anl_claims.SCHEDULES["reduced"][0]
    assert (case.labels, case.loss, case.seed, case.images, case.epochs) == ("clean", "ce", 7, 40, 2)
    assert (case.model, case.learning_rate) == (reduced.model, reduced.learning_rate)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("--schedule quick", "invalid choice"),
        ("--schedule reduced --epochs 0", "at least 1"),
        ("--schedule reduced --images many", "at least 1"),
        ("--schedule reduced --losses mse", "invalid choice"),
    ],
)
def test_a_wrong_argument_says_what_is_right(given: str, complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parsed(*given.split())
    assert complaint in capsys.readouterr().err


def test_the_table_puts_means_beside_the_published_numbers():
    runs = {
        Case("symmetric-0.8", "ce", 1): outcome(20.0),
        Case("symmetric-0.8", "ce", 2): outcome(22.0),
        Case("symmetric-0.8", "anl-ce*", 1): outcome(61.0, wrong=math.nan),
    }
    lines = table(runs).splitlines()
    assert lines[0] == "| labels | | ce | nce+rce | anl-ce | anl-ce* |"
    assert lines[2:] == [
        "| symmetric-0.8 | published | 19.09 | 55.52 | 61.27 | 61.62 |",
        "| symmetric-0.8 | last epoch | 21.00 ± 1.41 | - | - | 61.00 |",
        "| symmetric-0.8 | best epoch | 22.00 ± 1.41 | - | - | 62.00 |",
        "| symmetric-0.8 | wrong labels learnt | 10.00 ± 0.00 | - | - | - |",
    ]


def test_finished_runs_are_not_repeated(tmp_path: Path):
    ledger = Ledger(tmp_path / "new" / "runs.csv", Case, Outcome)
    wanted = [Case(loss=loss, augment=False) for loss in ("ce", "nce+rce", "anl-ce")]
    done: list[Case] = []

    def measure(case: Case) -> Outcome:
        done.append(case)
        if len(done) == 2:
            raise KeyboardInterrupt
        return outcome(50 + len(done) / 3, wrong=math.nan)

    with pytest.raises(KeyboardInterrupt):
        ledger.complete(wanted, measure, 1, anl_claims.words)
    runs = ledger.complete(wanted, measure, 1, anl_claims.words)
    assert done == [wanted[0], wanted[1], wanted[1], wanted[2]]
    assert list(runs) == wanted
    assert runs[wanted[0]].accuracy == 50 + 1 / 3
    assert ledger.read().keys() == runs.keys()
    other = [Case(loss="ce", augment=True)]
    assert list(ledger.complete(other, measure, 1, anl_claims.words)) == other
    assert len(done) == 5


def test_a_foreign_csv_file_is_refused_and_kept(tmp_path: Path):
    path = tmp_path / "runs.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns labels, loss, seed"):
        Ledger(path, Case, Outcome).complete([Case()], lambda case: outcome(1.0), 1, anl_claims.words)
    assert path.read_text() == "a,b\n1,2\n"


def test_the_share_of_wrong_labels_learnt():
    true, given = np.array([0, 1, 2, 3, 4]), np.array([0, 2, 3, 4, 4])
    assert anl_claims.learnt_wrong(np.array([9, 2, 2, 4, 4]), given, true) == pytest.approx(200 / 3)
    assert math.isnan(anl_claims.learnt_wrong(true, true, true))


def test_the_reduced_network_is_the_papers_with_fewer_channels():
    name = anl_claims.SCHEDULES["reduced"][0].model
    thin = MODELS.build(name, num_classes=10, input_shape=(3, 32, 32))
    full = cnn8(10, (3, 32, 32))
    assert isinstance(thin, torch.nn.Sequential)
    assert isinstance(full, torch.nn.Sequential)
    assert [type(layer) for layer in thin] == [type(layer) for layer in full]
    widths = [[layer.out_channels for layer in model if isinstance(layer, torch.nn.Conv2d)] for model in (thin, full)]
    assert widths[0] == [width // 4 for width in widths[1]]
    assert thin(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_rate_falls_as_a_cosine_over_all_epochs_with_one_optimizer(monkeypatch: pytest.MonkeyPatch):
    used: list[tuple[int, float]] = []

    def step(_self: object, _model: object, optimizer: LocalOptimizer, *_rest: object) -> torch.Tensor:
        used.append((id(optimizer), optimizer.rate))
        return torch.zeros(())

    monkeypatch.setattr(anl_claims.Trainer, "step", step)
    data = anl_claims.LocalData(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    case = Case(epochs=4, learning_rate=0.2, batch_size=5, augment=False)
    assert list(anl_claims.train(torch.nn.Linear(1, 1), case, Cifar10(), data, CPU)) == [1, 2, 3, 4]
    assert [rate for _, rate in used] == pytest.approx([0.1 * (1 + math.cos(math.pi * e / 4)) for e in range(4)])
    assert len({optimizer for optimizer, _ in used}) == 1


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.data
def test_a_tiny_run_learns_its_labels_and_repeats(data_root: Path):
    case = Case("human-worse", "ce", 3, "digits-cnn", 30, 20, 30, 10, 0.05, augment=False)
    first = anl_claims.run_case(case, data_root, "cpu")
    assert first.learnt_wrong > 80  # cross-entropy on 30 images learns the labels, right or wrong, by heart
    assert first.accuracy <= first.best_accuracy <= 100
    assert 15 < first.noise_rate < 65
    again = anl_claims.run_case(case, data_root, "cpu")
    assert (again.accuracy, again.learnt_wrong) == (first.accuracy, first.learnt_wrong)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rate"), [("clean", 0.0), ("symmetric-0.8", 0.7992), ("asymmetric-0.4", 0.2), ("human-worse", 0.40208)]
)
def test_the_labels_are_wrong_as_often_as_published(name: str, rate: float, data_root: Path):
    task = anl_claims.load_task(data_root, 50_000, 20)
    labels = anl_claims.given_labels(name, 1, task)
    assert np.mean(labels != task.train_examples().labels) == pytest.approx(rate, abs=1e-9)


def test_missing_data_ends_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = ["anl_claims", "--schedule", "reduced", "--data", str(tmp_path), "--output", str(tmp_path / "runs.csv")]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(SystemExit, match=r"error: CIFAR-10: cannot read .*fetch it"):
        anl_claims.main()
    assert not (tmp_path / "runs.csv").exists()


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_plain_form_of_anl_ce_equals_the_products(scale: float):
    torch.manual_seed(0)
    logits = (scale * torch.randn(64, 10, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(10, (64,))
    plain = losses.plain_anl_ce(logits, labels)
    own = build("anl-ce", 10).data_term(logits, labels)
    assert plain.item() == pytest.approx(own.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (plain, own)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_both_ways_of_the_penalty_have_one_gradient():
    torch.manual_seed(0)
    ways = losses.penalty_ways(losses.TASKS["digits-cnn"]().build_model("digits-cnn", ""))
    multi_tensor, one_by_one = (call() for call in ways.values())
    for ours, plain in zip(multi_tensor, one_by_one, strict=True):
        torch.testing.assert_close(ours, plain)


def test_every_way_is_measured_and_the_first_of_a_group_is_the_yardstick(tmp_path: Path):
    rows = losses.measure(losses.groups(["digits-cnn"], 4, CPU), 0.0, CPU)
    assert [row.way for row in rows][-3:] == list(losses.LOSSES)
    assert len({row.group for row in rows}) == 3
    for group in {row.group for row in rows}:
        members = [row for row in rows if row.group == group]
        assert members[0].ratio == 1
        assert all(row.ratio == row.microseconds / members[0].microseconds for row in members)
    losses.write_csv(tmp_path / "losses.csv", rows)
    with (tmp_path / "losses.csv").open(newline="") as file:
        assert [float(line["ratio"]) for line in csv.DictReader(file)] == [row.ratio for row in rows]
    assert len(losses.table(rows).splitlines()) == 2 + len(rows)


def test_a_measured_step_is_a_real_one():
    task = losses.TASKS["digits-cnn"]()
    model = task.build_model("digits-cnn", "")
    values = {loss: call() for loss, call in losses.step_ways(task, model, 4, CPU).items()}
    assert all(value.item() > 0 for value in values.values())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_cohorts_compares_the_same_training():
    one, many = (cohorts.members(cohorts.CASES[2], 2, "ce") for _ in range(2))
    small = [replace(own, local=LocalData(own.local.features[:16], own.local.labels[:16])) for own in one]
    cohorts.one_by_one(small)
    trained = cohorts.train_together([replace(b, local=a.local) for a, b in zip(small, many, strict=True)])
    assert [each.steps for each in trained] == [5, 5]
    for a, b in zip(one, many, strict=True):
        for mine, theirs in zip(a.model.parameters(), b.model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
