"""Documentation site: pages that are not in docs/, and links that lead out of it, for ``mkdocs.yml``.

README becomes the first page and CONTRIBUTING another; each public package has a page of its reference. Links to other
files of the repository, which a site does not have, become their names.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")
LINK = re.compile(r"(?<!!)\[((?:[^\]\\`]|`[^`]*`)+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/, and those of the reference that the navigation names."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_moved((ROOT / source).read_text(encoding="utf-8"))))
    for entry in next(part["Reference"] for part in config["nav"] if "Reference" in part):
        ((package, page),) = entry.items()
        files.append(File.generated(config, page, content=_reference(package)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that lead out of docs/ into those of the site, or into names."""
    return LINK.sub(lambda found: _link(found[1], found[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the roles of docstrings, such as ``:meth:``, which Markdown does not know."""
    return ROLE.sub("", html)


def _moved(text: str) -> str:
    """Return a page of the repository's root as if it lay in docs/."""
    return text.replace("](docs/", "](")


def _link(text: str, target: str) -> str:
    if target.startswith(("http:", "https:", "#", "mailto:")):
        return f"[{text}]({target})"
    name, _, anchor = target.removeprefix("../").partition("#")
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
