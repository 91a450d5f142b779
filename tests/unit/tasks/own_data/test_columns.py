"""Tables of numbers and categories: fitted over sites without their rows, to what scikit-learn makes of all rows."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.in_process import asked
from server_app.preprocessing import with_statistics
from server_app.validation.config import check
from tasks.base import DataError
from tasks.client_data import client_dataset, load_task
from tasks.config import DEFAULTS, ConfigError
from tasks.own_data import ColumnTable
from tasks.own_data.statistics import Columns, Moments, Statistics, Summary, apart, merge
from tasks.plugins import PluginError
from tasks.settings import Settings, TaskSettings
from tests.site_data import ARGS, column_table, table
from tests.unit.tasks.own_data.test_files import problems

Cells = list[list[Any]]


def wide_table(name: str, seed: int = 0) -> tuple[Cells, list[str], list[str], list[str]]:
    """Return rows with gaps, names of 3 columns of numbers and 2 of categories made of numbers, and the labels."""
    found = {"wine": load_wine, "cancer": load_breast_cancer}[name]()
    rng = np.random.default_rng(seed)
    rows: Cells = []
    for values in found.data:
        numbers = [*values[:2], 100 + values[2], 4.25]  # the last one is constant
        sorts = [f"size {int(values[3] % 7)}", rng.choice(["\u00e9t\u00e9", "hiver", "B"])]
        rows.append(
            [None if rng.random() < 0.1 and place != 1 else value for place, value in enumerate(numbers + sorts)]
        )
    return rows, ["a", "b", "c", "d"], ["size", "season"], [f"class {label}" for label in found.target]


def pooled(rows: Cells, wide: int) -> Any:
    """What scikit-learn makes of all rows in one place, fitted, and the features (n, d) of these rows."""
    cells = np.array(rows, dtype=object)
    numbers = cells[:, :wide].astype(float)
    fitted = ColumnTransformer(
        [
            ("n", make_pipeline(StandardScaler(), SimpleImputer(add_indicator=True)), list(range(wide))),
            ("c", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(range(wide, cells.shape[1]))),
        ]
    )
    together = np.concatenate([numbers.astype(object), cells[:, wide:]], axis=1)
    return fitted, fitted.fit_transform(together).astype(float)


def raw_of(rows: Cells, wide: int) -> tuple[np.ndarray, list[list[str]]]:
    """Rows as the task holds them: numbers, then places of values in the order of their coming."""
    sorts = range(wide, len(rows[0]))
    vocabulary = [list(dict.fromkeys(row[at] for row in rows if row[at] is not None)) for at in sorts]
    raw = [
        [*row[:wide], *(None if row[at] is None else vocabulary[at - wide].index(row[at]) for at in sorts)]
        for row in rows
    ]
    return np.array(raw, dtype=float), vocabulary


def settings_of(root: Path, args: str, clients: int = 3, **changes: str) -> Settings:
    settings = Settings(task=TaskSettings("table", args, str(root)))
    settings = replace(settings, federation=replace(settings.federation, num_clients=clients))
    settings = replace(settings, evaluate=replace(settings.evaluate, validation=0.0))  # the statistics are those of all
    return replace(settings, partition=replace(settings.partition, args="alpha = 0.5, min_size = 10"), **changes)


@pytest.mark.parametrize("name", ["wine", "cancer"])
def test_three_sites_make_of_their_rows_what_scikit_learn_makes_of_all(name: str, tmp_path: Path) -> None:
    rows, numbers, sorts, labels = wide_table(name)
    written = [(*("" if cell is None else str(cell) for cell in row), y) for row, y in zip(rows, labels, strict=True)]
    table(tmp_path / "table.csv", (*numbers, *sorts, "label"), written)
    classes = json.dumps(sorted(set(labels)))
    args = f"classes = {classes}, numbers = {json.dumps(numbers)}, categories = {json.dumps(sorts)}, min_count = 1"
    known = asked(settings_of(tmp_path, args), range(3))
    _, expected = pooled(rows, 4)
    task = load_task(known.task)
    assert isinstance(task, ColumnTable)
    raw, vocabulary = raw_of(rows, 4)
    statistics = Statistics.read(known.task.statistics, task.columns)
    np.testing.assert_allclose(statistics.transform(raw, vocabulary), expected, rtol=1e-12, atol=1e-12)
    examples = task.train_examples()
    np.testing.assert_array_equal(examples.features.numpy(), statistics.transform(raw, vocabulary).astype(np.float32))
    assert task.input_shape == (expected.shape[1],)
    for client in range(3):  # and each client learns from its part of these
        data = client_dataset(known, client).data
        np.testing.assert_array_equal(data.features.numpy(), examples.features.numpy()[data.ids])


def test_moments_of_many_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    values = 1e8 + rng.normal(size=1000)
    values[::7] = np.nan
    cuts = [0, 0, 1, 7, 500, 500, 1000]
    total = Moments()
    for low, high in pairwise(cuts):
        total = total.merged(Moments.of(values[low:high]))
    assert (total.count, total.missing) == (np.isfinite(values).sum(), np.isnan(values).sum())
    np.testing.assert_allclose(total.mean, np.nanmean(values), rtol=1e-15)
    np.testing.assert_allclose(total.squares, np.nanvar(values) * total.count, rtol=1e-9)
    naive = np.nansum(values**2) - total.count * np.nanmean(values) ** 2
    assert abs(naive - total.squares) > 0.01 * total.squares, "the example is one that sums of squares fail on"
    assert Moments.of(np.full(10, 0.1)).deviation == 0
    assert Moments.of(np.array([np.nan])) == Moments(missing=1)


def test_values_that_were_not_there_and_missing_ones() -> None:
    columns = Columns(("a",), {"b": ()})
    given = Statistics(columns, (2.0,), (0.5,), (True, True), (("x", "y"),))
    raw = np.array([[3.0, 0], [np.nan, 1], [2.0, np.nan], [1e90, 2]])
    features = given.transform(raw, [["y", "never seen", "x"]])
    np.testing.assert_array_equal(features, [[2, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1e6, 0, 1, 0, 0]])
    assert given.unknown([["y", "never seen", "x"]]) == {"b": ["never seen"]}
    assert Statistics.read(given.text(), columns) == given


def test_a_rare_value_and_the_mean_of_few_numbers_stay_at_their_site(tmp_path: Path) -> None:
    rows = [("1", "m", "x")] * 4 + [("", "m", "y")] * 2 + [("", "only one patient", "y")]
    table(tmp_path / "table.csv", ("a", "s", "label"), rows)
    task = load_task(TaskSettings("table", 'classes = ["x", "y"], numbers = ["a"], categories = ["s"]', str(tmp_path)))
    assert isinstance(task, ColumnTable)
    told = task.summary(np.arange(7))
    assert task.read_summary(told, 7) == Summary((Moments(missing=3),), (("m",),), (0,))
    assert "only one patient" not in task.in_words(told)
    assert "only one patient" not in bytes(told["category-values"]).decode()


def test_values_that_few_sites_hold_or_that_are_declared() -> None:
    one, two = Summary((), (("x", "y"),), (0,)), Summary((), (("y",),), (1,))
    asked, declared = Columns((), {"b": ()}), Columns((), {"b": ("q", "a")})
    assert merge([one, two], asked).values == (("x", "y"),)
    assert merge([one, two], asked, min_sites=2).values == (("y",),)
    assert merge([Summary((), ((),), (0,))], declared).values == (("q", "a"),)
    many = [Summary((), (tuple(f"junk {n:04}" for n in range(1000)),), (0,)), one, two, two]
    assert {"y"} < set(merge(many, asked).values[0]), "of too many values those stay that most sites hold"
    assert len(merge(many, asked).values[0]) == 1000


GOOD = {
    "number-counts": [3],
    "number-missing": [1],
    "number-means": [0.5],
    "number-squares": [2.0],
    "category-missing": [0],
    "category-values": list(b'[["x"]]'),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number-means": [float("nan")]}, "number-means must be"),
        ({"number-means": [1e101]}, "number-means must be"),
        ({"number-means": [0.5, 0.5]}, "number-means must be 1 numbers"),
        ({"number-squares": [-1.0]}, "number-squares must be"),
        ({"number-squares": [float("inf")]}, "number-squares must be"),
        ({"number-counts": [-1]}, "number-counts must be"),
        ({"number-counts": [5]}, "number-counts must be"),
        ({"number-counts": [4]}, "more than its examples"),
        ({"number-counts": 3}, "number-counts must be"),
        ({"category-values": 10**12}, "category-values must be the bytes"),
        ({"category-values": [300]}, "category-values must be the bytes"),
        ({"category-values": list(b"[" * 100_000)}, "category-values must be the bytes"),
        ({"category-values": list(b"[]")}, "must be 1 lists"),
        ({"category-values": list(b'[["x", "x"]]')}, "must be different"),
        ({"category-values": list(b"[[1]]")}, "must be texts"),
        ({"category-values": list(rb'[["\ud800"]]')}, "surrogates not allowed"),
        ({"category-values": list(json.dumps([["x" * 101]]).encode())}, "must be texts of 1 to 100"),
        ({"category-values": list(json.dumps([[str(n) for n in range(1001)]]).encode())}, "at most 1000"),
    ],
)
def test_a_summary_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    columns = Columns(("a",), {"b": ()})
    assert Summary.read(GOOD, columns, 4) == Summary((Moments(3, 0.5, 2.0, 1),), (("x",),), (0,))
    with pytest.raises(ValueError, match=message):
        Summary.read({**GOOD, **change}, columns, 4)


def test_what_any_site_may_say_stays_finite() -> None:
    columns, most = Columns(("a",), {}), 10**9
    said = [Summary((Moments(most, sign * 1e100, 4e200 * most),), (), ()) for sign in (1, -1, 1)]
    assert np.isfinite([*merge(said, columns).means, *merge(said, columns).deviations]).all()


def test_a_site_with_another_unit_is_named_and_one_with_other_patients_is_not() -> None:
    columns = Columns(("dose",), {})
    sites = {n: Summary((Moments(10, 5.0 + n, 40.0),), (), ()) for n in range(4)}
    assert apart(sites, columns) == {}
    odd = {**sites, 9: Summary((Moments(10, 5e6, 4e13),), (), ())}
    assert list(apart(odd, columns)) == [9]
    assert "the column 'dose'" in apart(odd, columns)[9]
    assert apart({0: odd[0], 9: odd[9]}, columns) == {}, "of two sites nobody knows who is right"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1e999,0.1,north,dark", "the column 'age' holds '1e999', which is no number"),
        ("nan,0.1,north,dark", "the column 'age' holds 'nan', which is no number"),
        ("1_0,0.1,north,dark", "the column 'age' holds '1_0', which is no number"),
        ('"1,5",0.1,north,dark', "the column 'age' holds '1,5', which is no number"),
        (f"1,0.1,{'x' * 101},dark", "the column 'unit' holds more than 100 characters, which is no category"),
        ("1,0.1,north,drak", "unknown class 'drak'; did you mean 'dark'? choices: bright, dark"),
        ("1,0.1,north,", "the column 'label' is empty"),
        ("1,0.1,dark", "has more or fewer cells than there are columns; is a quote or a delimiter missing?"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(row: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"age,dose,unit,label\n1,2,south,bright\n{row}\n")
    assert problems("table", tmp_path) == [f"table.csv line 3: {said}"]


def test_names_decimal_commas_other_columns_and_gaps(tmp_path: Path) -> None:
    content = "who;age;note;label\nann;1,5;-;x\nbob;?;-;y\ncid;2,5;-;y\nann;2,5;-;y\ndan;1.000,5;-;y\n"
    (tmp_path / "t.csv").write_text(content)
    args = 'classes = ["x", "y"], numbers = ["age"], file = "t.csv", name = "who", delimiter = ";", decimal = ",", '
    task = load_task(TaskSettings("table", args + 'missing = ["?"]', str(tmp_path), "skip"))
    np.testing.assert_array_equal(task.train_examples().features, [[-1, 0], [0, 1], [1, 0]])
    assert list(task.example_names(np.arange(3))) == ["ann", "bob", "cid"]
    said = "\n".join(issue.text for issue in task.data_issues())
    assert "t.csv line 5: the name 'ann' is that of line 2 too" in said
    assert "t.csv line 6: the column 'age' holds '1.000,5', which is no number" in said
    assert "columns that are not declared are ignored: note" in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("numbers = []", "no columns to learn from"),
        ('numbers = ["a"], categories = ["a"]', "'a' is declared twice"),
        ('numbers = ["label"]', "'label' is declared twice"),
        ('numbers = "a"', "numbers must be a list"),
        ('categories = { b = ["x", "x"] }', "values of b must be a list of different texts"),
        ('categories = { b = ["NA"] }', "declares the value 'NA', which stands for a missing one"),
        ('numbers = ["a"], min_count = 0', "at least 1 are expected"),
        ('numbers = ["a"], missing = "NA"', "missing must be a list of texts"),
        ('numbers = ["a"], statistics = "{}"', "statistics is set by the run itself"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(args: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=message):
        load_task(TaskSettings("table", f'classes = ["x", "y"], {args}', str(tmp_path)))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    table(tmp_path / "table.csv", ("age", "doze", "unit", "label"), [("1", "2", "north", "dark")])
    with pytest.raises(DataError, match=r"has no column 'dose'; did you mean 'doze'.* age, doze, label, unit"):
        load_task(TaskSettings("table", ARGS["table"], str(tmp_path))).train_examples()


def test_a_column_of_free_text_is_no_category(tmp_path: Path) -> None:
    rows = [("1", "2", f"patient {n}", "dark") for n in range(1001)]
    table(tmp_path / "table.csv", ("age", "dose", "unit", "label"), rows)
    with pytest.raises(DataError, match=r"'unit' .* has 1001 different values, and categories have at most 1000"):
        load_task(TaskSettings("table", ARGS["table"], str(tmp_path))).train_examples()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "no JSON object"),
        ("{", "no JSON object"),
        ('{"numbers": {"age": {}, "dose": {}}}', "no categories of the column 'unit'"),
        ('{"numbers": {"age": {"mean": 1, "deviation": -1}, "dose": {}}, "categories": {"unit": {}}}', "column 'age'"),
        ('{"numbers": {"age": {}, "dose": {}, "x": {}}, "categories": {"unit": {}}}', "not declared: x"),
    ],
)
def test_declared_statistics_that_do_not_fit_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=message):
        load_task(TaskSettings("table", ARGS["table"], str(tmp_path), statistics=text))


def test_rows_are_kept_on_disk_once_their_statistics_are_known(tmp_path: Path) -> None:
    settings = settings_of(column_table(tmp_path / "data"), ARGS["table"])
    kept = replace(settings, task=replace(settings.task, cache_path=str(tmp_path / "kept")))
    load_task(kept.task).train_examples()
    assert not (tmp_path / "kept").exists(), "the rows themselves are asked for"
    known = asked(kept, range(3))
    expected = load_task(known.task).train_examples().features
    again = load_task.__wrapped__(known.task)
    again.read = None  # type: ignore[method-assign,assignment]
    assert bool((again.train_examples().features == expected).all())
    other = with_statistics(kept, known.task.statistics.replace("north", "nord"))
    assert bool((load_task(other.task).train_examples().features != expected).any())


@pytest.mark.parametrize("noise", ["symmetric", "instance"])
def test_wrong_labels_do_not_depend_on_whether_the_sites_were_asked(noise: str, tmp_path: Path) -> None:
    settings = settings_of(column_table(tmp_path, 90), ARGS["table"])
    settings = replace(settings, noise=replace(settings.noise, name=noise, rates_args="max = 0.4"))
    known = asked(settings, range(2))  # one has not answered: its numbers are standardised by those of others
    for client in range(3):
        before, after = client_dataset(settings, client), client_dataset(known, client)
        np.testing.assert_array_equal(before.data.labels, after.data.labels)
        assert (before.data.features != after.data.features).any()
    assert any(client_dataset(known, client).noise_rate > 0.15 for client in range(3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"privacy.mode": "local"}, "means and deviations of the columns would leave the sites without noise"),
        ({"attack.name": "backdoor", "attack.share": 0.5}, "a patch of pixels needs a task with images"),
        ({"noise.name": "open-set", "noise.args": 'path = "x.npz", array = "x"'}, "x.npz"),
        ({"model.name": "digits-cnn"}, "images of shape"),
    ],
)
def test_what_a_table_cannot_is_said_before_any_client_starts(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    task = {"task.name": "table", "task.args": ARGS["table"], "task.data-path": str(column_table(tmp_path))}
    clients = {"federation.num-clients": 2, "partition.name": "iid", "partition.args": ""}
    with pytest.raises(ConfigError, match=said):
        check({**DEFAULTS, **task, **clients, **change})
