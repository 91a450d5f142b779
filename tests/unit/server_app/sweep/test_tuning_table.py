"""Table of a sweep's tuning: budget, scores and what was chosen."""

from dataclasses import replace

from server_app.sweep.comparison import compare
from server_app.sweep.tables import latex_table, markdown_table, text_table
from server_app.sweep.tuning_table import tuning_note, tuning_rows
from tests.sweep_cases import design_of, synthetic_runs

RECORD = {
    "keys": {"train.learning-rate": ["0.1", "0.03", "0.01"]},
    "seeds": ["101"],
    "choose": "mean",
    "only": {"noise": ["clean", "symmetric"]},
    "common": {},
    "measure": "validation_accuracy",
    "budget": {"fedavg": 6, "winnow": 6, "median": 6},
    "scores": {
        "fedavg": {"0.1": 0.7, "0.03": 0.75, "0.01": None},
        "winnow": {"0.1": 0.81, "0.03": 0.8, "0.01": 0.3},
        "median": {"0.1": 0.5, "0.03": 0.5, "0.01": 0.6},
    },
    "chosen": {
        "fedavg": {"train.learning-rate": 0.03},
        "winnow": {"train.learning-rate": 0.1},
        "median": {"train.learning-rate": 0.01},
    },
}
DESIGN = design_of(tuning=RECORD)
NOTE = (
    "Tuned: 3 values of train.learning-rate in the settings with noise clean, symmetric, seed 101: 6 runs for each "
    "method; chosen on validation data, by the mean over the settings. Chosen at an end of the values tried, so a "
    "better one may lie beyond: train.learning-rate of winnow, median."
)


def test_the_budget_and_the_choice_are_said():
    assert tuning_note(DESIGN) == NOTE
    unequal = replace(DESIGN, tuning={**RECORD, "budget": {"fedavg": 6, "fedcorr": 3}, "only": {}, "choose": "worst"})
    assert "in every setting, seed 101: 3 to 6 runs for a method (fedavg 6, fedcorr 3)" in tuning_note(unequal)
    assert tuning_note(unequal).count("by the worst setting.") == 1
    assert tuning_note(design_of()) == ""


def test_texts_and_single_values_have_no_ends():
    record = {**RECORD, "keys": {"loss.name": ["ce", "gce"]}, "chosen": {"fedavg": {"loss.name": "ce"}}}
    assert "at an end" not in tuning_note(replace(DESIGN, tuning=record))
    inside = {name: {"train.learning-rate": 0.03} for name in RECORD["chosen"]}
    assert "at an end" not in tuning_note(replace(DESIGN, tuning={**RECORD, "chosen": inside}))


def test_scores_are_shown_with_the_chosen_one_starred():
    assert tuning_rows(DESIGN) == [
        ("method", "0.1", "0.03", "0.01"),
        ("fedavg", "70.0  ", "75.0 *", "failed  "),
        ("winnow", "81.0 *", "80.0  ", "30.0  "),
        ("median", "50.0  ", "50.0  ", "60.0 *"),
    ]


def test_scores_of_a_loss_are_losses():
    record = {**RECORD, "measure": "validation_loss", "scores": {"fedavg": {"0.1": -2.0, "0.03": -1.5}}}
    assert tuning_rows(replace(DESIGN, tuning=record))[1] == ("fedavg", "2.000  ", "1.500 *")


def test_before_its_end_nothing_is_chosen():
    begun = replace(DESIGN, tuning={name: RECORD[name] for name in ("keys", "seeds", "choose", "only", "common")})
    assert tuning_note(begun).endswith("seed 101; nothing is chosen yet.")
    assert tuning_rows(begun) == []


def test_tables_show_the_tuning_apart():
    found = compare(DESIGN, synthetic_runs(DESIGN))
    shown = text_table(found, 200)
    assert NOTE in " ".join(shown.split())
    assert shown.splitlines()[-3].split() == ["fedavg", "70.0", "75.0", "*", "failed"]
    assert max(map(len, text_table(found, 40).splitlines())) <= 40
    assert "| fedavg | 70.0   | 75.0 \\* | failed   |" in markdown_table(found)
    assert NOTE in latex_table(found)
