"""The documentation as a site: every page and link is there, the reference has docstrings, nothing is fetched."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT
from tests.registries import registries

FETCHED = re.compile(r"""<(?:script|link|img|iframe)[^>]*?\s(?:src|href)=["']?(https?://[^"'\s>]+)""")


def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {f"{page.stem}/index.html" for page in (ROOT / "docs").glob("*.md")} <= pages.keys()
    assert "Called once the run has ended" in pages["reference/server_app.callbacks/index.html"]
    assert [name for name, page in pages.items() if re.search(r":(meth|class|mod):<code", page)] == []
    assert {address for page in pages.values() for address in FETCHED.findall(page)} == set()
    known = [entry for registry in registries() for entry in registry.entries()]
    chosen = html.unescape(pages["choices/index.html"])
    assert [entry.name for entry in known if f"<td><code>{entry.name}</code></td>" not in chosen] == []
    assert [link for entry in known for link in entry.links if f'href="{link}"' not in unquote(chosen)] == []
