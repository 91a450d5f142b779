"""Relabelling of own data: which label the files give each example, and a copy of the data with other labels.

The originals are only read. A copy is made beside its final place and moved there when it is whole.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.base import DataError
from tasks.files import private_folder
from tasks.own_data.base import ListedTask, OwnDataTask
from tasks.own_data.files import UnusableError, as_stored, entries, existing_folder, files_below, inside, nfc, real
from tasks.own_data.images import ImageFolder, ImageTable
from tasks.own_data.masks import ImageMasks, by_stem
from tasks.own_data.tables import read_table, rewrite_table

Changes = Mapping[str, int | None]
"""By the names of examples their new class, or None for one that is left out."""


@dataclass
class _Plan:
    """What a copy holds: ``files`` and ``written`` by their path in it, and the new ``names`` of examples."""

    files: dict[str, Path] = field(default_factory=dict)
    written: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def given_labels(task: OwnDataTask) -> dict[str, int]:
    """Return by name the class that the files of the data folder give each example; all may have the same class 0.

    Nothing is decoded. Masks have no label as a whole: each is of class 0. What belongs to no class is left out.

    Raises
    ------
    DataError
        If the folder or the table is not there, or the task is none whose files are known.
    """
    root = existing_folder(task.root)
    if isinstance(task, ListedTask):
        rows = read_table(root, task.table_format, (task.label_column,)).rows
        numbers = {value: number for number, value in enumerate(task.values)}
        found = {task.row_name(row): numbers.get(nfc(row.cells.get(task.label_column, ""))) for row in rows}
        return {name: number for name, number in found.items() if number is not None}
    if isinstance(task, ImageFolder):
        return {_relative(root, path): number for number, path in _class_files(task, root)}
    if isinstance(task, ImageMasks):
        folder = existing_folder(root, task.images_folder)
        return {_relative(root, path): 0 for path in files_below(folder, task.left_out(root))}
    raise DataError(f"where {type(task).__name__} keeps its labels is not known, so they cannot be written anew")


def relabelled_copy(task: OwnDataTask, changes: Changes, output: Path, hard_links: bool = False) -> dict[str, str]:
    """Write a copy of the data folder of a task in which examples have other labels, or are left out.

    Parameters
    ----------
    task
        What is declared of the data.
    changes
        The new classes; a mask can only be left out.
    output
        Folder of the copy; it must not be there, or be empty. Only this user can read it.
    hard_links
        Give files that stay as they are a second name, and do not copy them.

    Returns
    -------
    dict
        New names of the examples whose file moved.

    Raises
    ------
    DataError
        If an example is not there, ``output`` cannot take the copy, or it cannot be written to its end.
    """
    root = existing_folder(task.root)
    _check_output(root, output)
    if unknown := sorted(changes.keys() - given_labels(task).keys()):
        raise DataError(f"{root} has no example {unknown[0]!r} ({len(unknown)} are missing); has the data changed?")
    plan = _plan(task, root, changes)
    for folder in sorted(task.left_out(root)):  # the test data goes along
        if folder.is_dir() and folder.is_relative_to(real(root)):
            below = as_stored(root, str(folder.relative_to(real(root))))
            plan.files |= {_relative(root, path): path for path in files_below(below)}
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # one that a crash has left
        _write(root, plan, partial, hard_links)
        os.rename(partial, output)
    except OSError as error:
        raise DataError(_why(error, output)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return plan.names


def _check_output(root: Path, output: Path) -> None:
    whole, own = real(output.absolute()), real(root)
    if whole.is_relative_to(own) or own.is_relative_to(whole):
        raise DataError(f"{output} and the data folder {root} lie in each other; name a folder elsewhere")
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(f"{output} is there already; name a new folder, nothing is written over")


def _plan(task: OwnDataTask, root: Path, changes: Changes) -> _Plan:
    if isinstance(task, ListedTask):
        return _listed(task, root, changes)
    if isinstance(task, ImageFolder):
        return _moved(task, root, changes)
    assert isinstance(task, ImageMasks), "given_labels knows the same tasks"
    return _without_masks(task, root, changes)


def _listed(task: ListedTask, root: Path, changes: Changes) -> _Plan:
    """Plan a table with other cells, and the images that it still lists."""
    table, names = task.table_format, changes.keys()
    rows = read_table(root, table, (task.label_column,)).rows
    values: dict[str, str | None] = {name: None if k is None else task.values[k] for name, k in changes.items()}
    cells = {row.line: values[task.row_name(row)] for row in rows if task.row_name(row) in names}
    plan = _Plan(written={table.file: rewrite_table(root, table, task.label_column, cells)})
    if isinstance(task, ImageTable):
        for name in {task.row_name(row) for row in rows} - {name for name, k in changes.items() if k is None}:
            if ".." in Path(name).parts:
                raise DataError(f"the table {table.file} lists {name!r}: write the path without '..'")
            try:
                path = inside(root, name)
            except UnusableError:  # what the task cannot use either stays behind
                continue
            if path.is_file():
                plan.files[name] = path
    return plan


def _moved(task: ImageFolder, root: Path, changes: Changes) -> _Plan:
    """Plan a tree in which images lie in the folders of their new classes."""
    plan, coming = _Plan(), list[tuple[str, Path, int]]()
    for _, path in _class_files(task, root):
        name = _relative(root, path)
        new = changes.get(name, -1)
        if new == -1:
            plan.files[name] = path
        elif new is not None:
            coming.append((name, path, new))
    for name, path, new in coming:  # when all that stay have their names
        folder, _, rest = name.partition("/")
        target = f"{task.values[new]}/{rest}"
        stem, number = Path(rest).with_suffix("").as_posix(), 1
        while target in plan.files:
            number += 1
            mark = f"-from-{folder}" + (f"-{number - 1}" if number > 2 else "")
            target = f"{task.values[new]}/{stem}{mark}{path.suffix}"
        plan.files[target] = path
        if target != name:
            plan.names[name] = target
    return plan


def _without_masks(task: ImageMasks, root: Path, changes: Changes) -> _Plan:
    """Plan the folders without the images that are left out, and their masks."""
    if kept := [name for name, new in changes.items() if new is not None]:
        raise DataError(f"a mask has no class that could be changed: {kept[0]}; correct its file, or leave it out")
    plan, left_out = _Plan(), task.left_out(root)
    images = existing_folder(root, task.images_folder)
    gone = {
        stem for stem, found in by_stem(images, left_out).items() if {_relative(root, p) for p in found} & {*changes}
    }
    for path in files_below(images, left_out):
        plan.files |= {} if _relative(root, path) in changes else {_relative(root, path): path}
    for stem, paths in by_stem(existing_folder(root, task.masks_folder), left_out).items():
        if stem.removesuffix(task.mask_suffix) not in gone:
            plan.files |= {_relative(root, path): path for path in paths}
    return plan


def _class_files(task: ImageFolder, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield the files in the folders of the classes, with the class."""
    left_out = task.left_out(root)
    for folder in entries(root):
        if nfc(folder.name) in task.values and os.path.isdir(folder) and real(folder) not in left_out:
            number = task.values.index(nfc(folder.name))
            yield from ((number, path) for path in files_below(inside(root, folder.name), left_out))


def _write(root: Path, plan: _Plan, folder: Path, hard_links: bool) -> None:
    private_folder(folder)
    for name, path in plan.files.items():
        source = real(path)
        if not source.is_relative_to(real(root)):
            raise DataError(f"{path} is a link that leads outside of the data folder; nothing was written")
        if not source.is_file():  # a link to a folder, a pipe: no example
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if hard_links:
            os.link(source, target)
        else:
            shutil.copy2(source, target)
    for name, content in plan.written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _why(error: OSError, output: Path) -> str:
    if error.errno == errno.EXDEV:
        return f"{output} is on another disk than the data, so files cannot be linked; leave out --hard-links"
    return f"cannot write the copy {output}: {error.strerror or error}"


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
