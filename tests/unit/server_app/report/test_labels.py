"""The parts of the report about labels: clients taken for noisy, and the label audits."""

from pathlib import Path
from typing import Any

import pytest

from server_app.report import ReportError, read_run, write_report
from server_app.report.charts import group_chart, label_chart, standing_chart
from server_app.report.labels import Standing, group_losses, role_section, standings
from server_app.storage.audit_scores import SCORES, Relabelling, Score, Scores, write_scores
from tests.run_directories import accuracies, write_run

ROSTER = [{"round": 0, "client": i, "examples": 20, "noise_rate": 0.2 * i} for i in range(4)]


def score(client: int, wrong: int, corrected: Relabelling | None = None) -> Score:
    suggested = Relabelling(right=19, fixed=wrong, damaged=1, differing=wrong + 1, differing_right=wrong)
    return Score(
        client, 20, wrong, 0.1, 0.97531 if wrong else None, 0.75 if wrong else None, 0.5, 0.3, suggested, corrected
    )


def played(number: int, *roles: str, **values: Any) -> list[dict[str, Any]]:
    """One round: the role of each client, all with these values."""
    return [{"round": number, "client": i, "role": role, **values} for i, role in enumerate(roles)]


def text_of(path: Path) -> str:
    return write_report(path).read_text().replace("\u00a0", " ")


def with_roles(path: Path) -> Path:
    lines = [
        *ROSTER,
        *played(1, "unknown", "unknown", "unknown", "unknown", train_loss=2.0),
        *played(2, "clean", "clean", "noisy", "noisy", train_loss=1.0, posterior=0.9),
        *played(3, "clean", "clean", "noisy", "noisy", train_loss=0.5, posterior=0.9),
        *played(4, "clean", "noisy", "noisy", train_loss=0.25, posterior=0.6),
    ]
    return write_run(path, metrics=accuracies(0.1, 0.2, 0.3, 0.4, 0.5), clients=lines, rounds=4)


def test_the_last_role_of_each_client_counts(tmp_path: Path):
    found = standings(read_run(with_roles(tmp_path)))
    assert found == [
        Standing(0, "clean", 0.6, 0.0),
        Standing(1, "noisy", 0.6, 0.2),
        Standing(2, "noisy", 0.6, 0.4),
        Standing(3, "noisy", 0.9, pytest.approx(0.6)),
    ]


def test_each_change_of_the_groups_is_said_once(tmp_path: Path):
    notes = role_section(read_run(with_roles(tmp_path)))["role_notes"]
    assert notes[:2] == [
        "Round 2: 2 of 4 clients taken for noisy: 2, 3.",
        "Round 4: 3 of 4 clients taken for noisy: 1, 2, 3.",
    ]
    assert notes[2].replace("\u00a0", " ") == (
        "In truth 40.0 % of the labels of a client taken for noisy are wrong on average, and 0.0 % of one taken for "
        "clean; 2 of the 3 taken for noisy belong to the half of the clients with more wrong labels."
    )


def test_that_nobody_is_noisy_is_said_too(tmp_path: Path):
    write_run(tmp_path, clients=[*ROSTER, *played(3, "clean", "clean", "clean", "clean")])
    assert role_section(read_run(tmp_path))["role_notes"] == ["Round 3: 0 of 4 clients taken for noisy."]


def test_losses_are_averaged_by_group_and_round(tmp_path: Path):
    assert group_losses(read_run(with_roles(tmp_path))) == {
        "unknown": [(1, 2.0)],
        "clean": [(2, 1.0), (3, 0.5), (4, 0.25)],
        "noisy": [(2, 1.0), (3, 0.5), (4, 0.25)],
    }


def test_a_run_without_roles_and_audits_has_neither_section(tmp_path: Path):
    write_run(tmp_path, metrics=accuracies(0.1, 0.5), clients=[*ROSTER, {"round": 1, "client": 0, "weight": 1.0}])
    page = text_of(tmp_path)
    assert "<h2>Label audit</h2>" not in page
    assert "<h2>Clients with noisy labels</h2>" not in page


def test_the_page_shows_roles_with_label_accuracy_before_and_after(tmp_path: Path):
    with_roles(tmp_path)
    corrected = Relabelling(right=17, fixed=10, damaged=1, differing=11, differing_right=10)
    write_scores(tmp_path, Scores((score(0, 0), score(3, 12, corrected))))
    page = text_of(tmp_path)
    assert "<h2>Clients with noisy labels</h2>" in page
    for title in ("Were the right clients taken for noisy?", "Clean and noisy clients over the rounds"):
        assert title in page
    assert '<td class="num">40.0 %</td><td class="num">85.0 %</td>' in page


def test_the_page_judges_the_audits(tmp_path: Path):
    write_run(tmp_path, metrics=accuracies(0.1, 0.5), clients=ROSTER)
    corrected = Relabelling(right=16, fixed=9, damaged=1, differing=10, differing_right=9)
    write_scores(tmp_path, Scores((score(0, 0), score(2, 8), score(3, 12, corrected))))
    page = text_of(tmp_path)
    for text in (
        "20 of 60 labels are wrong. On average over the clients, 75.0 % of the labels at the top of a list are wrong",
        "(AUC 0.975)",
        "95.0 % of all labels would be right instead of 66.7 %: 100.0 % of the wrong ones",
        "7.5 % of the right ones spoiled",
        "The client method changed labels of 1 of 3 clients while it trained: 80.0 % of their labels were right after",
        "40.0 % before, and 90.0 % of the changes were right",
        '<td class="num">12 of 12</td><td class="num">1 of 8</td>',
        "How many labels are right?",
    ):
        assert text in page


def test_a_run_with_right_labels_only_says_nothing_about_finding_wrong_ones(tmp_path: Path):
    write_run(tmp_path, metrics=accuracies(0.1, 0.5), clients=ROSTER)
    write_scores(tmp_path, Scores((score(0, 0),)))
    page = text_of(tmp_path)
    assert "<h2>Label audit</h2>" in page
    assert "labels are wrong" not in page
    assert label_chart(Scores((score(0, 0),))) is None


@pytest.mark.parametrize("content", ['{"clients": [{"client": 1}]}', '{"examples": 3}', '{"clients": 5}'])
def test_scores_that_are_none_are_an_error_that_names_the_file(tmp_path: Path, content: str):
    write_run(tmp_path)
    (tmp_path / SCORES).write_text(content)
    with pytest.raises(ReportError, match=SCORES):
        read_run(tmp_path)


def test_there_is_no_chart_without_values():
    assert standing_chart([Standing(0, "clean", None, 0.1)]) is None
    assert group_chart({"unknown": [(1, 2.0)]}) is None
    assert standing_chart([Standing(0, "clean", 0.2, 0.1)]) is not None


def test_estimated_noise_levels_stand_where_there_are_no_probabilities(tmp_path: Path):
    lines = [{**line, "noise_level": 0.37 if line["role"] == "noisy" else 0.0} for line in played(1, "clean", "noisy")]
    write_run(tmp_path, metrics=accuracies(0.1, 0.2), clients=[*ROSTER, *lines])
    page = text_of(tmp_path)
    assert "Wrong labels, estimated" in page
    assert '<td class="num">37 %</td>' in page
    assert "Probability of being noisy" not in page
    assert "estimated wrong labels (%)" in page
    with_roles(tmp_path / "probable")
    other = text_of(tmp_path / "probable")
    assert "Probability of being noisy" in other
    assert "Wrong labels, estimated" not in other


def test_a_large_weight_of_a_client_that_learns_its_labels_is_explained(tmp_path: Path):
    said = "a large weight is no trust in these"
    for name, method, role in (("a", "masked-optim", "noisy"), ("b", "sgd", "noisy"), ("c", "masked-optim", "clean")):
        write_run(tmp_path / name, metrics=accuracies(0.1, 0.2), clients=[*ROSTER, *played(1, "clean", role)])
        with (tmp_path / name / "config.toml").open("a") as file:
            file.write(f'[method]\nname = "{method}"\n')
        assert (said in text_of(tmp_path / name)) == (name == "a")


def test_the_training_loss_is_not_said_to_be_on_given_labels_where_some_correct_them(tmp_path: Path):
    metrics = [{"round": 1, "accuracy": 0.5, "loss": 1.0, "train_loss": 2.0}]
    write_run(tmp_path / "plain", metrics=metrics, clients=ROSTER)
    write_run(tmp_path / "roles", metrics=metrics, clients=[*ROSTER, *played(1, "clean", "noisy")])
    plain, roles = text_of(tmp_path / "plain"), text_of(tmp_path / "roles")
    assert "training (given labels)" in plain
    assert "training (given labels)" not in roles
    assert "that of the client method at clients taken for noisy" not in plain
    assert "and that of the client method at clients taken for noisy" in roles
