"""Keys of a federation: their folder, and ``winnow keys``, which makes, renews and shows keys and certificates.

Nothing is ever overwritten by accident. Who has which file::

    ca.key                 signs the SuperLink's certificates; may be kept elsewhere in between
    ca.crt                 lets everyone recognise the SuperLink
    superlink.crt .key     the SuperLink's certificate and key
    superlink.secret       shared by the SuperLink and its executor
    operator.token         lets its holder submit runs and admit nodes
    nodes/NAME.key         who a node is; .secret is shared by the node and its executor
    public/NAME.pub        what the coordinator registers
"""

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from server_app.cli import certificates
from server_app.cli.certificates import ALWAYS, Signed
from server_app.cli.config import CommandError, path_argument

FOLDER = Path("deploy/keys")
CONTAINER_USER = (10001, 10001)  # who the containers run as where root starts them; deploy/Dockerfile has the same
SITES_HERE = "sites"  # the profile of the sites in docker-compose.yml
EXAMPLE = "example:  winnow keys create --host fl.example.org --nodes 3"
SOON_DAYS = 30
NODE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class KeyFolder:
    """Makes, renews and describes the keys in a folder.

    Parameters
    ----------
    path
        The folder; it is made when first written to, readable by its owner only.
    owner
        User and group id that the files are given to; None = whoever runs this.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._owner = owner

    @property
    def authority(self) -> Path:
        """The certificate by which everyone recognises the SuperLink."""
        return self.path / "ca.crt"

    def superlink(self, kind: str) -> Path:
        """Return the SuperLink's ``crt``, ``key`` or ``secret``."""
        return self.path / f"superlink.{kind}"

    @property
    def operator(self) -> Path:
        """The token by which the SuperLink knows its operators."""
        return self.path / "operator.token"

    def node(self, name: str, kind: str) -> Path:
        """Return a node's ``key``, ``secret`` or ``pub``."""
        return self.path / ("public" if kind == "pub" else "nodes") / f"{name}.{kind}"

    def names(self) -> list[str]:
        """Return the names of the nodes whose public keys are here."""
        return sorted(file.stem for file in self.path.glob("public/*.pub"))

    def create(self, hosts: Sequence[str], nodes: Iterable[str]) -> list[str]:
        """Make everything that is missing and return a line for each part; what is there is kept.

        Raises
        ------
        CommandError
            If a host is missing in the certificate that is there, or a file of a pair is missing.
        """
        lines = [self._create_authority(), self._create_server(hosts), self._create_operator()]
        lines += [self.create_node(name) for name in nodes]
        self._make(self.path / "public")  # compose looks for nodes there, also where there is none yet
        return lines

    def create_node(self, name: str) -> str:
        """Make the keys of one node unless they are there, and return what was done.

        Raises
        ------
        CommandError
            If the name is not one, or only a part of the keys is there.
        """
        if not NODE_NAME.fullmatch(name):
            raise CommandError(f"the name of a node is made of a-z, 0-9 and '-', got {name!r}")
        if self._complete(f"node {name}", *(self.node(name, kind) for kind in ("key", "pub", "secret"))):
            return f"kept     keys of node {name}"
        self._write_node(name)
        return f"made     keys of node {name}"

    def renew_server(self, hosts: Sequence[str]) -> str:
        """Replace the SuperLink's certificate and key; without ``hosts`` it stays valid for the same ones.

        Raises
        ------
        CommandError
            If there is nothing to renew, or the authority's key is not here.
        """
        old = self._certificate(self.superlink("crt"))
        before = certificates.hosts_of(old)
        names = [*ALWAYS, *hosts] if hosts else before
        self._write_server(names)
        lost = [host for host in before if host not in names]
        lines = [f"renewed  certificate of the SuperLink ({', '.join(dict.fromkeys(names))})"]
        if lost:
            lines.append(f"NOT valid any more for {', '.join(lost)}: who connects to it refuses. To keep it:")
            lines.append(f"  {certificates.renewal([*before, *hosts])}")
        return "\n".join(lines)

    def renew_operator(self) -> str:
        """Replace the token of the operators."""
        self._write(self.operator, certificates.new_secret())
        return "renewed  token of the operators"

    def renew_node(self, name: str) -> str:
        """Replace the keys of a node.

        Raises
        ------
        CommandError
            If the node is not known here.
        """
        if name not in self.names():
            raise CommandError(f"no node {name!r} in {self.path}: {', '.join(self.names()) or 'there is none'}")
        self._write_node(name)
        return f"renewed  keys of node {name}"

    def describe(self) -> Iterator[str]:
        """Yield until when each certificate is valid, and which nodes there are.

        Raises
        ------
        CommandError
            If a certificate is missing or unreadable.
        """
        for name, file in (("authority", self.authority), ("SuperLink", self.superlink("crt"))):
            end = self._certificate(file).not_valid_after_utc
            days = (end - datetime.now(UTC)).days
            warning = "" if days > SOON_DAYS else "   <- renew it" if days >= 0 else "   <- EXPIRED"
            yield f"{name:<10} valid until {end:%Y-%m-%d} ({days} days){warning}"
        yield f"{'names':<10} {', '.join(certificates.hosts_of(self._certificate(self.superlink('crt'))))}"
        nodes = self.names()
        yield f"{'nodes':<10} " + (f"{', '.join(nodes)} (their keys do not expire)" if nodes else "none yet")

    def _create_authority(self) -> str:
        key, certificate = self.path / "ca.key", self.authority
        if certificate.exists():  # its key may be kept elsewhere
            return f"kept     authority {certificate}"
        self._complete("the authority", key, certificate)
        made = certificates.new_authority()
        self._write(key, made.key_bytes())
        self._write(certificate, made.certificate_bytes(), 0o644)
        return f"made     authority {certificate}, valid for {certificates.AUTHORITY_DAYS} days"

    def _create_server(self, hosts: Sequence[str]) -> str:
        files = [self.superlink(kind) for kind in ("crt", "key", "secret")]
        if not self._complete("the SuperLink", *files):
            self._write(files[2], certificates.new_secret())
            self._write_server([*ALWAYS, *hosts])
            return f"made     certificate of the SuperLink, valid for {certificates.SERVER_DAYS} days"
        known = certificates.hosts_of(self._certificate(files[0]))
        missing = sorted(set(hosts) - set(known))
        if missing:
            raise CommandError(
                f"the certificate {files[0]} is not valid for {', '.join(missing)}: "
                f"{certificates.renewal([*known, *hosts])}"
            )
        return "kept     certificate of the SuperLink"

    def _create_operator(self) -> str:
        if self.operator.exists():
            return "kept     token of the operators"
        self._write(self.operator, certificates.new_secret())
        return f"made     token of the operators {self.operator}"

    def _write_server(self, hosts: Sequence[str]) -> None:
        made = certificates.new_server(self._authority(), list(dict.fromkeys(hosts)))
        self._write(self.superlink("key"), made.key_bytes())
        self._write(self.superlink("crt"), made.certificate_bytes(), 0o644)

    def _write_node(self, name: str) -> None:
        private, public = certificates.new_node()
        self._write(self.node(name, "key"), private)
        self._write(self.node(name, "secret"), certificates.new_secret())
        self._write(self.node(name, "pub"), public, 0o644)

    def _authority(self) -> Signed:
        key = self.path / "ca.key"
        if not key.exists():
            raise CommandError(f"{key} is not here: bring it back, only it can sign the SuperLink's certificate")
        try:
            return certificates.read(key.read_bytes(), self.authority.read_bytes())
        except ValueError as error:
            raise CommandError(f"{key} or {self.authority} is damaged: bring back a copy") from error

    def _certificate(self, file: Path) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(file.read_bytes())
        except (OSError, ValueError) as error:
            raise CommandError(f"no certificate in {file} ({error}): make the keys with  winnow keys create") from error

    def _complete(self, whose: str, *files: Path) -> bool:
        """Tell whether all files are there; a part of them is an error, because making the rest would replace it."""
        there = [file for file in files if file.exists()]
        if there and len(there) < len(files):
            missing = ", ".join(str(file) for file in files if file not in there)
            raise CommandError(f"of {whose} {missing} is missing: bring it back, or remove {there[0]} to start anew")
        return bool(there)

    def _write(self, file: Path, content: bytes, mode: int = 0o600) -> None:
        """Write a file that is never, not even for a moment, readable by others or half written."""
        self._make(self.path)
        self._make(file.parent)
        partial = file.with_name(f".{file.name}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)
        partial.chmod(mode)
        self._give(partial)
        os.replace(partial, file)

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            self._give(folder)

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Make and renew the certificates and node keys of a federation. Existing keys are never replaced by create."
    parser = commands.add_parser("keys", help="keys of a deployment", description=text, epilog=EXAMPLE)
    parser.add_argument("--folder", type=path_argument, default=FOLDER, help=f"where the keys are (default: {FOLDER})")
    actions = parser.add_subparsers(dest="what", required=True, metavar="action")
    create = actions.add_parser("create", help="make what is missing")
    create.add_argument(
        "--nodes",
        type=int,
        default=3,
        metavar="N",
        help="make keys of node-0 to node-(N-1); 0 = all sites are elsewhere",
    )
    about = "tell compose the containers' user and whether sites run here, unless it exists"
    create.add_argument("--env", type=path_argument, metavar="FILE", help=about)
    renew = actions.add_parser("renew-server", help="replace the SuperLink's certificate, e.g. before it expires")
    for each in (create, renew):
        each.add_argument("--host", action="append", default=[], help="name or address of the SuperLink; repeatable")
    actions.add_parser("renew-operator", help="replace the token by which the SuperLink knows its operators")
    for name, about in (("node", "make the keys of one node"), ("renew-node", "replace the keys of one node")):
        actions.add_parser(name, help=about).add_argument("name", help="name of the node")
    actions.add_parser("show", help="say what there is and until when it is valid")
    parser.set_defaults(action=main)


def main(args: argparse.Namespace) -> int:
    """Do what was asked and print a line for each part."""
    owner = CONTAINER_USER if os.geteuid() == 0 else None
    folder = KeyFolder(args.folder.absolute(), owner)
    try:
        lines = act(args, folder, owner)
    except OSError as error:
        problem = f"{error.filename or folder.path}: {error.strerror}"
        raise CommandError(f"expected a folder for keys that you can read and write, but {problem}") from error
    print("\n".join(lines))
    return 0


def act(args: argparse.Namespace, folder: KeyFolder, owner: tuple[int, int] | None) -> list[str]:
    """Do what was asked and return a line for each part."""
    if args.what == "create":
        if args.nodes < 0:
            raise CommandError(f"--nodes: expected 0 or more, got {args.nodes}")
        lines = folder.create(args.host, [f"node-{number}" for number in range(args.nodes)])
        if args.env and not args.env.exists():
            user, group = owner or (os.geteuid(), os.getegid())
            here = f"COMPOSE_PROFILES={SITES_HERE}\n" if args.nodes else ""
            args.env.write_text(f"WINNOW_UID={user}\nWINNOW_GID={group}\n{here}", encoding="utf-8")
            lines.append(f"made     {args.env}")
    elif args.what == "node":
        lines = [folder.create_node(args.name)]
    elif args.what == "renew-node":
        lines = [folder.renew_node(args.name), "Register it and restart the node: docs/deployment.md, Key rotation"]
    elif args.what == "renew-operator":
        lines = [folder.renew_operator(), "Restart the SuperLink to use it; every operator needs the new file."]
    elif args.what == "renew-server":
        lines = [folder.renew_server(args.host), "Restart the SuperLink to use it."]
    else:
        lines = list(folder.describe())
    return lines
