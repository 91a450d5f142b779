"""Documentation site: pages that are not in docs/, and links that lead out of it, for ``mkdocs.yml``.

README becomes the first page; CONTRIBUTING and the benchmarks' README are others. Each public package has a page of its
reference, and all that can be chosen has tables, made of what ``winnow list`` shows. Links to other files of the
repository, which a site does not have, become their names.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from server_app.cli.catalog import Choice, built_ins
from server_app.cli.explanations import ARGUMENTS, INLINE, SETTINGS, argument_line

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "benchmarks/README.md": "benchmarks.md"}
CHOICES = "choices.md"
TITLES = {
    "method": "Client methods",
    "loss": "Losses",
    "aggregator": "Aggregators",
    "detector": "Detectors of noisy clients",
    "strategy": "Strategies",
    "pre-aggregator": "Pre-aggregators",
    "server-optimizer": "Server optimizers",
    "attack": "Attacks",
    "noise": "Label noise",
    "noise-rates": "Noise-rate distributions",
    "partition": "Partitions",
    "task": "Tasks",
    "encoder": "Frozen encoders",
    "model": "Models",
    "preset": "Presets of losses",
    "callback": "Callbacks",
}
"""By kind the heading of its table, in the order of the page; a new kind comes after them under its own name."""
ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "*": "\\*"})
ADDRESS = str.maketrans({"<": "%3C", ">": "%3E", "(": "%28", ")": "%29", "|": "%7C", " ": "%20"})
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")
LINK = re.compile(r"(?<!!)\[((?:[^\]\\`]|`[^`]*`)+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/, the tables of choices, and the reference that the navigation names."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_moved((ROOT / source).read_text(encoding="utf-8"))))
    files.append(File.generated(config, CHOICES, content=choices(built_ins())))
    for package, page in _named(config["nav"]):
        if page.startswith("reference/"):
            files.append(File.generated(config, page, content=_reference(package)))
    return files


def _named(nav: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield title and page of each entry of the navigation, however deep it lies."""
    for entry in nav:
        for title, below in entry.items():
            if isinstance(below, str):
                yield title, below
            else:
                yield from _named(below)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that lead out of docs/ into those of the site, or into names."""
    return LINK.sub(lambda found: _link(found[1], found[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the roles of docstrings, such as ``:meth:``, which Markdown does not know."""
    return ROLE.sub("", html)


def _moved(text: str) -> str:
    """Return a page from outside of docs/ as if it lay there."""
    return re.sub(r"\]\((?:\.\./)?docs/", "](", text)


def _link(text: str, target: str) -> str:
    if target.startswith(("http:", "https:", "#", "mailto:")):
        return f"[{text}]({target})"
    name, _, anchor = target.removeprefix("../").partition("#")
    if name == CHOICES:
        return f"[{text}]({target})"
    outside = target.startswith("../") or not (ROOT / "docs" / name).exists()
    if outside and name in PAGES:
        return f"[{text}]({PAGES[name]}{'#' + anchor if anchor else ''})"
    return text if outside else f"[{text}]({target})"


def _reference(package: str) -> str:
    """Return a page with all that a package exports, in the order of its ``__all__``."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    about = (ast.get_docstring(tree) or "").replace("``", "`")
    parts = "\n\n".join(f"::: {package}.{name}" for name in names)
    return f"# {package}\n\n{about}\n\n{parts}\n"


def choices(known: dict[str, list[Choice]]) -> str:
    """Return the page of choices, a table of each kind: name, what it is, arguments with defaults, paper with links."""
    kinds = [*(kind for kind in TITLES if kind in known), *(kind for kind in known if kind not in TITLES)]
    total = sum(len(known[kind]) for kind in kinds)
    head = (
        f"# What can be chosen\n\nAll {total} built-in choices, made from the code, as `winnow list` shows them; "
        "`winnow list KIND NAME` says what each argument means. A choice of your own is named by its import path: "
        "[plug-ins](plugins.md).\n"
    )
    return "\n".join([head, *(_choices_of(kind, known[kind]) for kind in kinds)])


def _choices_of(kind: str, known: list[Choice]) -> str:
    """Return heading and table of one kind."""
    setting = SETTINGS.get(kind, INLINE.get(kind, ""))
    arguments = ARGUMENTS.get(setting, "")
    keys = [f"`{key}`" for key in (setting, arguments) if key]
    lines = [
        f"## {TITLES.get(kind, kind)}\n",
        f"`winnow list {kind}`{', set by ' + ' and '.join(keys) if keys else ''}.\n",
    ]
    has_papers = any(each.paper for each in known)
    lines += ["| name | what it is |" + " paper |" * has_papers, "|---|---|" + "---|" * has_papers]
    for each in known:
        told = argument_line(each)
        about = each.summary.translate(ESCAPED) + (f"<br>`{told.replace('|', '&#124;')}`" if told else "")
        lines.append(f"| `{each.name}` | {about} |" + f" {_paper(each)} |" * has_papers)
    return "\n".join([*lines, ""])


def _paper(choice: Choice) -> str:
    """Return the paper with its first address, and further addresses behind it as numbers."""
    text = choice.paper.translate(ESCAPED)
    addresses = [address.translate(ADDRESS) for address in choice.links]
    if not addresses:
        return text
    more = [f"[[{number}]]({address})" for number, address in enumerate(addresses[1:], start=2)]
    return " ".join([f"[{text}]({addresses[0]})", *more])
