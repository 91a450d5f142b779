"""Command ``winnow audit``: people look at doubted labels, decide about them, and write their data anew."""

import argparse
import os
import shlex
import signal
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from server_app.cli.config import CommandError, path_argument

if TYPE_CHECKING:
    from server_app.label_review.review import LabelReview

FORMATS = ("label-studio", "cvat", "argilla", "fiftyone", "csv")
EXAMPLE = "example:  winnow audit open runs/20260131-101500/clients/0"
ABOUT = (
    "Look at the labels that a run's audit doubts, decide about them, and write the data anew. Everything stays on "
    "this machine: docs/audit.md."
)
LAUNCHER = ".open-review.html"
AUDIT_SUMMARY = "label-audit-summary.json"  # of client_app.label_audit_files, which is slow to import


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    about = "decide about doubted labels, and correct them"
    parser = commands.add_parser("audit", help=about, description=ABOUT, epilog=EXAMPLE)
    actions = parser.add_subparsers(dest="audit_action", required=True, metavar="action")
    opened = _action(actions, "open", "show a page on which the labels are decided about", open_review)
    opened.add_argument("--reviewer", metavar="NAME", default="", help="write this person's own file of decisions")
    opened.add_argument("--port", type=int, default=0, metavar="PORT", help="port on 127.0.0.1 (default: a free one)")
    opened.add_argument("--no-browser", action="store_true", help="only print the address")
    export = _action(actions, "export", "write the audit for an annotation tool", export_review)
    export.add_argument("--format", required=True, choices=FORMATS, help="the tool; csv is for a spreadsheet")
    export.add_argument("--output", metavar="FILE", type=path_argument, help="file (default: beside the audit)")
    taken = _action(actions, "import", "take decisions from a tool's export", import_decisions)
    taken.add_argument("file", metavar="FILE", type=path_argument, help="what the tool has exported")
    taken.add_argument("--format", choices=FORMATS, help="the tool (default: by the file)")
    taken.add_argument("--reviewer", metavar="NAME", default="", help="write this person's own file of decisions")
    applied = _action(actions, "apply", "write a copy of the data with corrected labels", apply, several=True)
    applied.add_argument("--output", metavar="NEW", required=True, type=path_argument, help="folder of the copy")
    applied.add_argument("--reviewer", metavar="NAME", help="only this person's decisions (default: all that agree)")
    applied.add_argument("--hard-links", action="store_true", help="link files that stay as they are, do not copy them")
    applied.add_argument(
        "--keep-wrong", action="store_true", help="keep examples that are wrong and have no other label"
    )


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    about: str,
    action: Callable[[argparse.Namespace], int],
    several: bool = False,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    folder = "folder of a client's audit: clients/0 of a run, or at a site a folder in its state-dir"
    parser.add_argument("folder", metavar="DIR", type=path_argument, help=folder, nargs="+" if several else None)
    parser.add_argument(
        "--data", metavar="DIR", type=path_argument, help="data folder, if it is not where the run saw it"
    )
    parser.set_defaults(action=_explained(action))
    return parser


def _explained(action: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return the action with what the user can correct as ``CommandError``."""

    def explained(args: argparse.Namespace) -> int:
        from server_app.label_review.contents import ContentError
        from server_app.label_review.review import ReviewError
        from tasks.base import DataError
        from tasks.files import WriteError

        try:
            return action(args)
        except (ReviewError, ContentError, DataError, WriteError) as error:
            raise CommandError(str(error)) from error

    return explained


def _review(folder: Path, data: Path | None) -> "LabelReview":
    from server_app.label_review.review import read_review

    return read_review(folder, data)


def open_review(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM."""
    from server_app.label_review.decisions import DecisionFile
    from server_app.label_review.server import ReviewServer

    review = _review(args.folder, args.data)
    file = DecisionFile(review, args.reviewer)
    with file.claimed():
        try:
            server = ReviewServer(review, file, args.port)
        except (OSError, OverflowError) as error:
            raise CommandError(f"--port {args.port}: {error}") from error
        with server:
            print(f"Label review of {len(review.examples)} examples: {server.url}", flush=True)
            print(f"Every decision is saved at once in {file.path}; Ctrl-C ends.", flush=True)
            if file.outdated:
                print(f"{file.outdated} decisions in it are about labels that this audit does not list, and are kept.")
            launcher = None if args.no_browser else show(server.url, args.folder)
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()
            finally:
                signal.signal(signal.SIGTERM, before)
                if launcher is not None:
                    launcher.unlink(missing_ok=True)
    print(f"{len(file.current)} of {len(review.examples)} labels are decided: {file.path}")
    return 0


def show(url: str, folder: Path) -> Path | None:
    """Open the page in a browser, and return the file by which it was; None where there is no screen.

    The address holds a secret, and everybody sees the command lines of others: so the browser is given a file that only
    this user can read, and that leads to the address.
    """
    from tasks.files import replace_file

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    path = (folder / LAUNCHER).absolute()
    content = (
        f'<!doctype html><meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url={url}">'
    )
    replace_file(path, content.encode(), private=True)
    webbrowser.open(path.as_uri())
    return path


def export_review(args: argparse.Namespace) -> int:
    """Write the files, and say what to do with them."""
    from server_app.label_review.contents import Contents
    from server_app.label_review.formats import FORMATS
    from tasks.files import replace_file

    review, chosen = _review(args.folder, args.data), FORMATS[args.format]
    contents = Contents(review)
    chosen.check(review, contents.kind)
    path = args.output or args.folder / f"review-{chosen.name}{chosen.ending}"
    for place, content in chosen.write(review, contents, path).items():
        replace_file(place, content, private=True)
        print(place)
    print(chosen.next_step(path))
    print(f"Then: winnow audit import {args.folder} FILE")
    return 0


def import_decisions(args: argparse.Namespace) -> int:
    """Note the decisions, and say how many there are."""
    from server_app.label_review.decisions import DecisionFile, Verdict
    from server_app.label_review.formats import FORMATS
    from server_app.label_review.formats.base import guess

    review = _review(args.folder, args.data)
    try:
        content = args.file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {args.file}: {error.strerror}") from error
    chosen = FORMATS[args.format or guess(content)]
    found = chosen.read(review, content)
    if found.unknown and not found.changes:
        raise CommandError(
            f"{args.file} names no example of this audit; the first is {found.unknown[0]!r}: another audit's?"
        )
    file = DecisionFile(review, args.reviewer)
    with file.claimed():
        file.decide(found.changes)
    counts = [sum(verdict is each for verdict, _ in found.changes.values()) for each in Verdict]
    print(
        f"{len(found.changes)} decisions from {chosen.title}: {counts[0]} right, {counts[1]} wrong, {counts[2]} unsure"
    )
    if found.unknown:
        print(f"{len(found.unknown)} names are not in this audit, such as {found.unknown[0]!r}")
    for note in found.notes:
        print(note)
    print(file.path)
    return 0


def apply(args: argparse.Namespace) -> int:
    """Write the copy and its log, and say what was changed."""
    from server_app.label_review.corrections import apply_corrections, corrections
    from server_app.label_review.decisions import agreements, all_decisions

    made = []
    for folder in args.folder:
        review = _review(folder, args.data)
        for each in agreements(all_decisions(review)):
            kappa = "not defined" if each.kappa is None else f"{each.kappa:.2f}"
            print(f"{each.first} and {each.second} agree on {each.alike} of {each.both} labels, Cohen's kappa {kappa}")
        made += corrections(review, args.reviewer, args.keep_wrong)
    done = apply_corrections(made, args.output, args.hard_links)
    print(", ".join(f"{count} {outcome}" for outcome, count in done.counts.items()))
    print(f"The data with corrected labels: {done.output}")
    print(f"What was changed, by whom: {done.log}")
    print(f"Train on it with task.data-path={done.output}, at a node with data-path={done.output} in its node-config")
    return 0


def audits(folder: Path) -> list[Path]:
    """Return the nodes' folders with label audits below ``folder``, those of all runs."""
    return sorted(found.parent for found in folder.glob(f"node-*/*/*/{AUDIT_SUMMARY}"))


def audit_lines(folders: Sequence[Path]) -> str:
    """Return what is printed about label audits that were made; nothing if none was.

    >>> print(audit_lines([Path("sites/node-0/first/0")]), end="")
    The labels that each node should look at:
      winnow audit open sites/node-0/first/0
    """
    commands = [f"  {shlex.join(['winnow', 'audit', 'open', str(folder)])}\n" for folder in folders]
    return "".join(["The labels that each node should look at:\n", *commands]) if commands else ""
