"""``winnow keys``: make, renew and look at the keys and certificates of a federation."""

import argparse
import os
from pathlib import Path

from server_app.command.configuration import CommandError
from server_app.command.key_folder import KeyFolder

FOLDER = Path("deploy/keys")
CONTAINER_USER = (10001, 10001)  # who the containers run as where root starts them; deploy/Dockerfile has the same
EXAMPLE = "example:  winnow keys create --host fl.example.org --nodes 3"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Make and renew the certificates and node keys of a federation. Existing keys are never replaced by create."
    parser = commands.add_parser("keys", help="keys of a deployment", description=text, epilog=EXAMPLE)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the keys are (default: {FOLDER})")
    actions = parser.add_subparsers(dest="what", required=True, metavar="action")
    create = actions.add_parser("create", help="make what is missing")
    create.add_argument("--nodes", type=int, default=3, metavar="N", help="make keys of node-0 to node-(N-1)")
    create.add_argument("--env", type=Path, metavar="FILE", help="tell compose the containers' user, unless it exists")
    renew = actions.add_parser("renew-server", help="replace the SuperLink's certificate, e.g. before it expires")
    for each in (create, renew):
        each.add_argument("--host", action="append", default=[], help="name or address of the SuperLink; repeatable")
    for name, about in (("node", "make the keys of one node"), ("renew-node", "replace the keys of one node")):
        actions.add_parser(name, help=about).add_argument("name", help="name of the node")
    actions.add_parser("show", help="say what there is and until when it is valid")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Do what was asked and print a line for each part."""
    owner = CONTAINER_USER if os.geteuid() == 0 else None
    folder = KeyFolder(args.folder.absolute(), owner)
    if args.what == "create":
        if args.nodes < 0:
            raise CommandError(f"--nodes: expected 0 or more, got {args.nodes}")
        lines = folder.create(args.host, [f"node-{number}" for number in range(args.nodes)])
        if args.env and not args.env.exists():
            user, group = owner or (os.geteuid(), os.getegid())
            args.env.write_text(f"WINNOW_UID={user}\nWINNOW_GID={group}\n", encoding="utf-8")
            lines.append(f"made     {args.env}")
    elif args.what == "node":
        lines = [folder.create_node(args.name)]
    elif args.what == "renew-node":
        lines = [folder.renew_node(args.name), "Register it and restart the node: docs/deployment.md, Key rotation"]
    elif args.what == "renew-server":
        lines = [folder.renew_server(args.host), "Restart the SuperLink to use it."]
    else:
        lines = list(folder.describe())
    print("\n".join(lines))
    return 0
