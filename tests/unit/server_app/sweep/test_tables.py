"""Tables and exports of a sweep's results: widths, marks, escapes, and files that other programs read."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from server_app.sweep.comparison import compare
from server_app.sweep.exports import cells_csv, parquet, results_json, runs_csv
from server_app.sweep.notes import Figures
from server_app.sweep.tables import latex_table, markdown_table, text_table
from tests.sweep_cases import COSTS, EFFECTS, design_of, failed, pending, runs_of_values, synthetic_runs

DESIGN = design_of()
RUNS = synthetic_runs(DESIGN)
FOUND = compare(DESIGN, [failed(RUNS[0]), *RUNS[1:]])
SMALL = design_of(("fedavg", "winnow"), ("clean",), seeds=2)


def few(values, **changes):
    design = replace(SMALL, **changes)
    return compare(design, runs_of_values(design, values))


def head(text):
    """The lines of the tables, without what stands below."""
    return text.split("\n\n*: best")[0].splitlines()


def test_a_table_of_known_numbers():
    found = few({("fedavg", "clean"): [0.70, 0.72], ("winnow", "clean"): [0.90, 0.92]})
    assert head(text_table(found, 80)) == [
        "method         clean        vs fedavg",
        "-------------------------------------",
        "fedavg  71.0 ± 1.4",
        "winnow  91.0 ± 1.4 *  +20.0 (p = 0.5)",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_keeps_to_the_width_by_splitting_columns(width):
    lines = text_table(FOUND, width).splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(head(text_table(FOUND, width)))
    assert all(shown.count(f" {title}") == 1 for title in (*COSTS, "overall", "vs fedavg", "mean rank"))
    tables = text_table(FOUND, width).split("\n\n*: best")[0].split("\n\n")
    assert all(table.split()[0] == "method" and table.count("winnow") == 1 for table in tables)


def test_what_is_missing_is_marked():
    shown = text_table(FOUND, 200)
    assert " (4 of 5)" in shown.splitlines()[2]
    assert "(n of m): only n of m seeds have a value" in shown
    nothing = compare(DESIGN, [pending(run) if run.point["method"] == "median" else run for run in RUNS])
    assert text_table(nothing, 200).splitlines()[4].split() == ["median", *"-----"]


def test_decimals_follow_the_deviation():
    fine = few({("fedavg", "clean"): [0.7, 0.7002], ("winnow", "clean"): [0.9, 0.9003]})
    assert Figures.of(fine).value(0.91234) == "91.23"
    loss = few({("fedavg", "clean"): [0.7, 0.8], ("winnow", "clean"): [0.9, 0.8]})
    assert Figures.of(replace(loss, measure="loss")).value(0.91234) == "0.912"
    assert Figures.of(few({("fedavg", "clean"): [0.5, 0.5], ("winnow", "clean"): [0.5, 0.5]})).decimals == 1


def test_names_are_escaped():
    axes = {"method": ("a_b|c*", "50 % & $x"), "noise": ("clean",), "seed": ("1", "2")}
    values = {("a_b|c*", "clean"): [0.1, 0.2], ("50 % & $x", "clean"): [0.3, 0.4]}
    found = few(values, axes=axes, baseline="a_b|c*", name="x_1")
    assert "| a\\_b\\|c\\* |" in markdown_table(found)
    assert "| vs a\\_b\\|c\\* |" in markdown_table(found)
    written = latex_table(found)
    assert r"50 \% \& \$x & \textbf{35.0 $\pm$ 7.1} & +20.0 (p = 0.5) \\" in written
    assert r"\caption{x\_1}" in written


def test_a_latex_table_is_whole():
    written = latex_table(FOUND)
    assert written.count(r"\begin{") == written.count(r"\end{") == 3
    rows = [line for line in written.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {6}
    assert r"\begin{tabular}{lrrrrrr}" in written
    assert "\u00a0" not in written


def test_markdown_has_a_row_for_each_option_and_the_notes():
    lines = markdown_table(FOUND).splitlines()
    assert {line.count("|") for line in lines[:5]} == {8}
    assert "**" in lines[3]
    assert any(line.startswith("Accuracy in") for line in lines)


def test_csv_has_a_line_for_each_run_with_its_options():
    lines = list(csv.DictReader(io.StringIO(runs_csv(FOUND))))
    assert len(lines) == len(RUNS)
    assert lines[0]["accuracy-last-ten"] == ""
    assert (lines[0]["state"], lines[0]["reason"]) == ("failed", "DivergedError: the loss is not finite")
    last = dict(RUNS[1].series["accuracy"])[20]
    assert (lines[1]["method"], lines[1]["seed"], float(lines[1]["accuracy-last"])) == ("fedavg", "2", last)


def test_csv_has_no_best_value_that_was_chosen_on_test_data():
    best = dict(RUNS[1].series["accuracy"])[RUNS[1].best_round]
    without = replace(RUNS[1], key="x", series={"accuracy": RUNS[1].series["accuracy"]})
    lines = list(csv.DictReader(io.StringIO(runs_csv(compare(DESIGN, [RUNS[1], without, *RUNS[2:]])))))
    assert [line["accuracy-best"] for line in lines[:2]] == [str(best), ""]


def test_csv_of_cells_has_the_statistics():
    lines = list(csv.DictReader(io.StringIO(cells_csv(FOUND))))
    assert len(lines) == 9 + 3
    score = FOUND.cells["winnow", ("clean",)]
    line = next(line for line in lines if (line["method"], line["noise"]) == ("winnow", "clean"))
    assert (float(line["mean"]), float(line["low"]), line["seeds"]) == (score.mean, score.interval[0], "5")
    assert float(line["baseline_adjusted"]) == score.against_baseline.adjusted
    assert [line["noise"] for line in lines[9:]] == ["", "", ""]


def test_json_has_values_by_seed():
    content = json.loads(results_json(FOUND))
    cell = next(cell for cell in content["cells"] if (cell["method"], cell["setting"]) == ("winnow", ["clean"]))
    assert cell["values"] == FOUND.cells["winnow", ("clean",)].values
    assert content["overall"]["winnow"]["against_baseline"]["verdict"] == "better"
    assert content["missing"][0]["why"].startswith("failed 2 times")
    assert content["notes"] == list(FOUND.notes)


def test_parquet_has_every_measure_of_every_round():
    from pyarrow import BufferReader
    from pyarrow.parquet import read_table

    table = read_table(BufferReader(parquet(DESIGN, [failed(RUNS[0]), *RUNS[1:3]])))
    lines = table.to_pylist()
    assert len(lines) == 1 + 2 * 4 * 21
    assert (lines[0]["state"], lines[0]["measure"], lines[0]["value"]) == ("failed", None, None)
    found = {line["round"]: line["value"] for line in lines if (line["seed"], line["measure"]) == ("3", "accuracy")}
    assert found == dict(RUNS[2].series["accuracy"])
    assert lines[-1]["settings"] == json.dumps(RUNS[2].settings, sort_keys=True)
    assert json.loads(table.schema.metadata[b"design"])["name"] == "digits"


def test_effects_that_were_put_in_are_found():
    for method, effect in EFFECTS.items():
        assert FOUND.cells[method, ("symmetric",)].mean == pytest.approx(effect - COSTS["symmetric"], abs=0.02)
    assert np.argmax([FOUND.overall[method].mean for method in EFFECTS]) == 1
