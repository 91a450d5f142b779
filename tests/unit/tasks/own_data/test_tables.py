"""Tables: how they are divided into rows and columns, what is refused as a whole, and the files that rows name."""

import os
import unicodedata
from pathlib import Path

import pytest

from tasks.base import DataError
from tasks.client_data import load_task
from tasks.own_data.base import OwnDataTask
from tasks.plugins import PluginError
from tasks.settings import TaskSettings
from tests.site_data import ARGS, image_table, table
from tests.unit.tasks.own_data.test_files import problems, task_of

ONE_FILE = "M\u00e9ni\u00e8re"
IN_PARTS = unicodedata.normalize("NFD", ONE_FILE)
OPEN = 'label,text\ndark,good one\nbright,"never closed\ndark,third\nbright,fourth\n'


def texts(root: Path, content: str, more: str = "", bad_data: str = "refuse") -> OwnDataTask:
    (root / "texts.csv").write_bytes(content.encode())
    return task_of("text-csv", root, more, bad_data)


def refusal(root: Path, content: str, more: str = "") -> str:
    """What is said of a table that is refused as a whole, even if single examples are to be skipped."""
    with pytest.raises(DataError) as caught:
        texts(root, content, more, "skip").train_examples()
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OPEN, "begins in line 3 is never closed"),
        (OPEN.replace("\n", "\r\n"), "begins in line 3 is never closed"),
        (OPEN.replace("\n", "\r"), "begins in line 3 is never closed"),
        (OPEN + 'dark,he said "no"\n', "begins in line 3 is followed by text in line 6"),
        ('label,text\ndark,"5" disk\n', "begins in line 2 is followed by text in line 2"),
        ('label,text\ndark,""5"" disk\n', "begins in line 2 is followed by text in line 2"),
        ('label,text\ndark,good\n"', "begins in line 3 is never closed"),
        ('label,text\ndark,good\nbright,"', "begins in line 3 is never closed"),
        ('"label,text\ndark,good\n', "begins in line 1 is never closed"),
        ('label,text,note\ndark,"two\nlines, ""sound""","open\nbright,a,b\n', "begins in line 3 is never closed"),
        ('label,text\n\n\ndark,a\u2028b\x0bc\nbright,"b\n', "begins in line 5 is never closed"),
        ('label,text\nbright,"' + "dark,x\n" * 200_000, "begins in line 2 is never closed"),
    ],
)
def test_a_stray_quote_is_refused_with_the_line_where_its_cell_begins(
    tmp_path: Path, content: str, message: str
) -> None:
    said = refusal(tmp_path, content)
    assert message in said
    assert 'declare quote = ""' in said


def test_a_table_without_quoting_is_declared(tmp_path: Path) -> None:
    assert texts(tmp_path, OPEN, ', quote = ""').train_examples().labels.tolist() == [0, 1, 0, 1]
    names = texts(tmp_path, "label,text\ndark,'a, b'\nbright,5\" disk\n", """, quote = "'" """)
    assert names.train_examples().labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "content",
    [
        'text,label\na 5" disk,dark\nx "y",bright\n',
        'text,label\n"a, b" ,"dark" \n"a ""b""",bright',
        '"text","label"\r\n"""a""",dark\r\na,bright\r\n',
        "text,label\ra,dark\rb,bright\r",
        "\n\ntext,label,,\na,dark,,\nb,bright,,\n",
    ],
)
def test_sound_tables_are_read(tmp_path: Path, content: str) -> None:
    task = texts(tmp_path, content)
    assert (task.train_examples().labels.tolist(), task.data_issues()) == ([0, 1], [])


def test_rows_over_several_lines_are_worth_a_warning_each_time(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "texts.csv").write_text('label,text\ndark,"a\nbright,b\ndark,c"\nbright,d\ndark,"e\nf"\n')
    for _ in range(2):
        load_task.cache_clear()
        task = load_task(TaskSettings("text-csv", ARGS["text-csv"], str(root), cache_path=str(tmp_path / "kept")))
        [issue] = task.data_issues()
        assert "rows that go over several lines: 2, the longest over lines 2 to 4" in issue.line
        assert issue.level == "warning"
    rows = [("scans/000.png", "dark", "a\nb"), ("scans/001.png", "bright", "c")]
    table(image_table(tmp_path / "images", 2) / "labels.csv", ("image", "label", "hospital"), rows)
    [issue] = task_of("image-csv", tmp_path / "images").data_issues()
    assert "rows that go over several lines: 1" in issue.line


@pytest.mark.parametrize(
    ("header", "more", "message"),
    [
        ("text,label,label", "", "has 2 columns 'label'; rename or remove"),
        ("text,label, label ", "", "has 2 columns 'label'; rename or remove"),
        (f"text,{ONE_FILE},{IN_PARTS}", f', label = "{ONE_FILE}"', f"has 2 columns '{ONE_FILE}'"),
        ("text,label,group,group", ', group = "group"', "has 2 columns 'group'"),
    ],
)
def test_a_column_named_twice_is_refused(tmp_path: Path, header: str, more: str, message: str) -> None:
    assert message in refusal(tmp_path, f"{header}\nsnow,dark,bright\n", more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (', header = ["text", "label", "label"]', "header must be a list of different texts"),
        (', header = ["text", "label", " label"]', "header must be a list of different texts"),
        (f', header = ["{ONE_FILE}", "{IN_PARTS}"]', "header must be a list of different texts"),
        (', text = ["text", " text"]', "text must be a list of different texts"),
        (", text = []", "text names no column"),
        (', text = ""', "text = '': the name of a column is expected"),
        (', label = " "', "label = ' ': the name of a column is expected"),
        (', delimiter = ";;"', "delimiter = ';;': one character is expected"),
        (', delimiter = ""', "delimiter = '': one character is expected"),
        (", delimiter = '\\t'", r'such as .* or "\\t" \(a tab, in double quotes\)'),
        (', delimiter = "\\n"', "one character is expected"),
        (', quote = "ab"', "quote = 'ab': one character is expected"),
        (', quote = ","', "neither a blank nor the delimiter"),
    ],
)
def test_a_declaration_of_a_table_that_does_not_fit_is_refused(more: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        load_task(TaskSettings("text-csv", ARGS["text-csv"] + more))


def test_a_row_without_a_group_is_a_problem_where_groups_are_used(tmp_path: Path) -> None:
    content = "text,label,group\nsnow,bright,a\nnight,dark,\nday,bright, \ncoal,dark,a\n"
    assert problems_of(tmp_path, content, ', group = "group"') == [
        "texts.csv line 3: the column 'group' is empty",
        "texts.csv line 4: the column 'group' is empty",
    ]
    groups = texts(tmp_path, content, ', group = "group"', "skip").groups()
    assert groups is not None
    assert groups.tolist() == ["a", "a"]
    assert texts(tmp_path, content).groups() is None
    rows = [(f"scans/00{i}.png", "dark", group) for i, group in enumerate(("a", ""))]
    table(image_table(tmp_path / "images", 2) / "labels.csv", ("image", "label", "hospital"), rows)
    assert problems("image-csv", tmp_path / "images") == [
        "labels.csv line 3, scans/001.png: the column 'hospital' is empty"
    ]


def problems_of(root: Path, content: str, more: str) -> list[str]:
    (root / "texts.csv").write_text(content)
    return problems("text-csv", root, more)


@pytest.mark.parametrize(("declared", "written"), [(ONE_FILE, IN_PARTS), (IN_PARTS, ONE_FILE)])
def test_names_are_the_same_in_each_unicode_form(tmp_path: Path, declared: str, written: str) -> None:
    file, args = f"{written}.csv", f'classes = ["{ONE_FILE}", "x"], file = "{declared}.csv", words = 4'
    (tmp_path / file).write_text(f"text,{written},{written}2\na,{written},{written}\nb,{declared},{declared}\n")
    task = load_task(TaskSettings("text-csv", f'{args}, label = "{declared}", group = "{declared}2"', str(tmp_path)))
    assert task.train_examples().labels.tolist() == [0, 0]
    groups = task.groups()
    assert groups is not None
    assert set(groups.tolist()) == {ONE_FILE}


@pytest.mark.parametrize(("stored", "listed"), [(ONE_FILE, IN_PARTS), (IN_PARTS, ONE_FILE)])
def test_an_image_is_found_in_whatever_unicode_form_it_is_listed(tmp_path: Path, stored: str, listed: str) -> None:
    root = image_table(tmp_path, 3)
    (root / "scans").rename(root / stored)
    (root / stored / "000.png").rename(root / stored / f"{stored}.png")
    names = [f"{listed}/{listed}.png", f"{stored}/001.png", f"{listed}/001.png"]
    table(root / "labels.csv", ("image", "label", "hospital"), [(name, "dark", "a") for name in names])
    assert problems("image-csv", root) == [
        f"labels.csv line 4, {listed}/001.png: is listed in line 3 already, as {stored}/001.png"
    ]
    assert len(task_of("image-csv", root, bad_data="skip").train_examples()) == 2


def test_an_image_is_listed_once_however_its_path_is_written(tmp_path: Path) -> None:
    root = image_table(tmp_path, 3)
    (root / "link.png").symlink_to("scans/000.png")
    (root / "other").symlink_to("scans")
    os.link(root / "scans" / "000.png", root / "scans" / "000.PNG")  # as on a disk that takes both for one name
    os.link(root / "scans" / "000.png", root / "copy.png")
    again = ["./scans/000.png", "scans/../scans/000.png", "link.png", "other/000.png", "scans/000.PNG", "copy.png"]
    names = ["scans/000.png", *again, "scans/001.png", "scans//001.png"]
    table(root / "labels.csv", ("image", "label", "hospital"), [(name, "dark", "a") for name in names])
    assert problems("image-csv", root) == [
        *(
            f"labels.csv line {line}, {name}: is listed in line 2 already, as scans/000.png"
            for line, name in enumerate(again, 3)
        ),
        "labels.csv line 10, scans//001.png: is listed in line 9 already, as scans/001.png",
    ]


def test_an_image_that_is_listed_with_two_labels_is_not_used_at_all(tmp_path: Path) -> None:
    root = image_table(tmp_path, 3)
    listed = [("scans/000.png", "dark"), ("./scans/000.png", "dark"), ("scans/000.png", "bright")]
    rows = [(name, label, "a") for name, label in (*listed, ("scans/001.png", "bright"), ("scans/002.png", "dark"))]
    table(root / "labels.csv", ("image", "label", "hospital"), rows)
    assert problems("image-csv", root) == [
        "labels.csv line 2, scans/000.png: is listed in line 4 too, with another label",
        "labels.csv line 3, ./scans/000.png: is listed in line 4 too, as scans/000.png, with another label",
        "labels.csv line 4, scans/000.png: is listed in line 2 too, with another label",
    ]
    assert task_of("image-csv", root, bad_data="skip").train_examples().labels.tolist() == [1, 0]


def test_a_path_that_leads_nowhere_says_why(tmp_path: Path) -> None:
    root, long = image_table(tmp_path, 2), "x" * 300
    (root / "circle.png").symlink_to("circle.png")
    names = ["scans\\000.png", "scans\\009.png", "scans/000.png/001.png", f"{long}.png", "circle.png"]
    table(root / "labels.csv", ("image", "label", "hospital"), [(name, "dark", "a") for name in names])
    assert problems("image-csv", root) == [
        "labels.csv line 2, scans\\000.png: there is no such file, but there is scans/000.png: "
        "write / between folders, not \\",
        "labels.csv line 3, scans\\009.png: there is no such file",
        "labels.csv line 4, scans/000.png/001.png: there is no such file",
        f"labels.csv line 5, {long}.png: cannot be reached: File name too long",
        "labels.csv line 6, circle.png: there is no such file",
    ]


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ("text;label\nsnow;dark\n", "", "has no column 'text'; it seems to be separated by \";\": declare delimiter"),
        ('"text";"label"\n"snow";"dark"\n', "", 'separated by ";": declare delimiter = ";"'),
        ("text\tlabel\nsnow\tdark\n", "", r'separated by "\t": declare delimiter = "\t"'),
        ("text|label\nsnow|dark\n", "", 'separated by "|"'),
        ("text,label\nsnow,dark\n", ', delimiter = ";"', 'separated by ","'),
        ("snow;dark\nday;bright\n", ', header = ["text", "label"]', 'has no row of 2 cells.*separated by ";"'),
        ("TEXT,label\nsnow,dark\n", "", "has no column 'text'; did you mean 'TEXT'?"),
        ("", "", "has no column 'text': it is empty; expected are a line with the names of the columns (text, label)"),
        ("\n\n", "", "it is empty"),
        ("text,label\n", "", "expected a table texts.csv with the columns text and label, and a row for each text"),
        ("text,label\nsnow,dark\nnight\0,dark\n", "", "line 3 holds a zero byte"),
        ("x" * 1_000_001 + ",label\n", "", "is damaged: field larger than"),
    ],
)
def test_what_is_wrong_with_a_table_as_a_whole_is_said(tmp_path: Path, content: str, more: str, message: str) -> None:
    said = refusal(tmp_path, content, more)
    assert all(part in said for part in message.split(".*"))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "is not UTF-8 but UTF-16"),
        ("utf-16-le", "line 1 holds a zero byte; save it as UTF-8"),
        ("latin-1", "is not UTF-8 (line 3: invalid"),
    ],
)
def test_another_encoding_is_named_with_the_way_out(tmp_path: Path, encoding: str, message: str) -> None:
    (tmp_path / "texts.csv").write_bytes("text,label\nsnow,dark\nsch\u00f6n,bright\n".encode(encoding))
    with pytest.raises(DataError) as caught:
        task_of("text-csv", tmp_path).train_examples()
    assert message in str(caught.value)


def test_a_class_in_another_case_is_hinted_at(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "text,label\nsnow,BRIGHT\n", "") == [
        "texts.csv line 2: unknown class 'BRIGHT'; did you mean 'bright'? choices: bright, dark"
    ]
