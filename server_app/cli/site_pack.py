"""Site bundle, ``winnow site pack``: one folder with all that a site needs to join, without a checkout or a build.

It holds a compose file, the certificate by which the SuperLink is recognised, settings, instructions in plain words,
the code of the site's own command, and either the name of an image or the image itself. The site's key is made at the
site, by ``setup.sh`` in the image: a private key that never travels cannot be copied on the way, nor by the
coordinator, who could else pass for the site.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from server_app.cli import certificates, own_packages
from server_app.cli.config import ADDRESS, CommandError, path_argument
from server_app.cli.environment import is_loopback
from server_app.cli.keys import CONTAINER_USER, FOLDER, NODE_NAME, KeyFolder
from server_app.cli.site_compose import COMPOSE, site_compose

SOURCES = Path("deploy/site")
TEXTS = ("README.md", ".env")  # templates; the rest of the folder is copied
PACKED = Path("deploy/packed")
ARCHIVE, ARCHIVED = "image.tar.gz", "image.id"  # the image, and by which number an engine knows it
INSIDE = "superlink"  # the SuperLink's name among the containers of the coordinator
EXAMPLE = "example:  winnow site pack hospital-a --superlink fl.example.org:8000 --number 0 --save"
WHY_HERE = "the image is packed with docker save, and"
OTHERWISE = "or give --image, the name by which the site can pull it"


@dataclass(frozen=True)
class Site:
    """What the coordinator decides about a site: its name, its number (partition-id) and the address it connects to.

    ``archived`` is the identity of the image that is packed; empty = the site pulls it.
    """

    name: str
    number: int
    superlink: str
    image: str
    user: tuple[int, int] = CONTAINER_USER
    archived: str = ""
    key_inside: bool = False

    @property
    def host(self) -> str:
        """The host of the SuperLink, as the site's certificate check sees it."""
        return self.superlink.rpartition(":")[0].strip("[]")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command line."""
    text = "Pack what a site needs to join a federation of docker-compose.yml; run it in the coordinator's checkout."
    parser = commands.add_parser("site", help="a folder for a site that joins", description=text, epilog=EXAMPLE)
    actions = parser.add_subparsers(dest="what", required=True, metavar="action")
    pack = actions.add_parser("pack", help="make the folder", epilog=EXAMPLE)
    pack.add_argument("name", help="name of the site: a-z, 0-9 and '-'")
    pack.add_argument("--superlink", required=True, **ADDRESS, help="where the site reaches the coordinator")
    pack.add_argument("--number", type=int, required=True, metavar="N", help="its partition-id, another for each site")
    image = pack.add_mutually_exclusive_group(required=True)
    image.add_argument("--image", metavar="REF", help="the site pulls this image, e.g. registry.example.org/winnow:1")
    about = "pack the image itself, by docker save (default: winnow:latest)"
    image.add_argument("--save", nargs="?", const="winnow:latest", metavar="IMAGE", help=about)
    about = "make the site's private key here and pack it; then the folder is secret, and you can pass for the site"
    pack.add_argument("--with-key", action="store_true", help=about)
    pack.add_argument("--tar", action="store_true", help="pack the folder into a .tar beside it, too")
    pack.add_argument("--output", type=path_argument, metavar="DIR", help=f"default: {PACKED}/NAME")
    pack.add_argument("--keys", type=path_argument, default=FOLDER, metavar="DIR", help=f"default: {FOLDER}")
    parser.set_defaults(action=pack_site)


def pack_site(args: argparse.Namespace) -> int:
    """Make the folder and say what to do with it."""
    folder = args.output or PACKED / args.name
    keys = KeyFolder(args.keys.absolute())
    image = args.save or args.image
    site = Site(args.name, args.number, args.superlink, image, key_inside=args.with_key)
    found = inspect_image(image) if args.save else InspectedImage()
    if problems := [*site_problems(site, keys, folder), *found.problems]:
        raise CommandError("\n  ".join(["the site cannot be packed:", *problems]))
    site = replace(site, user=found.user if args.save else user_of(keys), archived=found.identity)
    try:
        write_bundle(site, keys, folder)
        packed = pack_tar(folder) if args.tar else folder
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CommandError(f"the folder {folder} cannot be written: {error.filename}: {error.strerror}") from error
    print("\n".join([*next_steps(site, packed), *unreachable(Path(".env"))]))
    return 0


def site_problems(site: Site, keys: KeyFolder, folder: Path) -> Iterator[str]:
    """Yield what is wrong with the choices, each with its remedy."""
    if not NODE_NAME.fullmatch(site.name):
        yield f"the name of a site is made of a-z, 0-9 and '-', got {site.name!r}"
    if site.number < 0:
        yield f"--number: expected 0 or more, got {site.number}"
    if folder.exists():
        yield f"{folder} is there already: remove it, or choose another with --output"
    if missing := [str(path) for path in (COMPOSE, SOURCES) if not path.exists()]:
        yield f"{' and '.join(missing)} is not here: run this in the checkout of the coordinator"
    if site.host == INSIDE or is_loopback(site.host):
        yield f"--superlink: {site.host} leads a site to its own machine: expected the coordinator's name or address"
    try:
        hosts = certificates.hosts_of(x509.load_pem_x509_certificate(keys.superlink("crt").read_bytes()))
    except (OSError, ValueError):
        yield f"no certificate of the SuperLink in {keys.path}: make it with  winnow keys create --host {site.host}"
        return
    if not keys.authority.exists():
        yield f"{keys.authority} is missing: bring it back, sites recognise the SuperLink by it"
    if site.host not in hosts:
        known = ", ".join(hosts)
        yield (
            f"the SuperLink's certificate is not valid for {site.host}, only for {known}: "
            f"{certificates.renewal([*hosts, site.host])}, restart the SuperLink"
        )


@dataclass(frozen=True)
class InspectedImage:
    """What the engine of this machine says of an image: its identity, as whom it runs, or why it cannot be packed."""

    identity: str = ""
    user: tuple[int, int] = CONTAINER_USER
    problems: tuple[str, ...] = ()


def inspect_image(image: str) -> InspectedImage:
    """Ask the engine, once, what is needed of an image to pack it."""
    if shutil.which("docker") is None:
        there = f"--save: {WHY_HERE} there is no docker here: run this where the image was built, {OTHERWISE}"
        return InspectedImage(problems=(there,))
    command = ["docker", "image", "inspect", "--format", "{{.Id}} {{.Config.User}}", image]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        why = (found.stderr.strip().splitlines() or ["no such image"])[-1]
        why = f"--save: {WHY_HERE} docker says of {image}: {why}; build it with  docker compose build, {OTHERWISE}"
        return InspectedImage(problems=(why,))
    identity, _, runs_as = found.stdout.strip().partition(" ")
    if not re.fullmatch(r"\d+:\d+", runs_as):
        why = f"--save: {image} does not run as a user and group of its own ({runs_as!r}): is it Winnow's?"
        return InspectedImage(problems=(why,))
    user, _, group = runs_as.partition(":")
    return InspectedImage(identity, (int(user), int(group)))


def user_of(keys: KeyFolder) -> tuple[int, int]:
    """Return for which user an image was built beside these keys: who owns them, as ``winnow keys --env`` says."""
    owner = keys.authority.stat()
    return (owner.st_uid, owner.st_gid) if owner.st_uid else CONTAINER_USER


def write_bundle(site: Site, keys: KeyFolder, folder: Path) -> None:
    """Write the folder; with a private key or not, only its owner can look into it.

    Raises
    ------
    OSError
        If something cannot be read or written.
    CommandError
        If the image cannot be saved, or the site's key is half there.
    """
    import jinja2  # slow

    folder.mkdir(mode=0o700, parents=True)
    for name in ("keys", "setup"):
        (folder / name).mkdir()
    shutil.copy(keys.authority, folder / "ca.crt")
    (folder / "docker-compose.yml").write_text(site_compose(site.name, pull="never" if site.archived else "missing"))
    for package in ("server_app", *own_packages.PACKAGES):
        left = shutil.ignore_patterns("__pycache__")
        shutil.copytree(own_packages.BESIDE / package, folder / "app" / package, ignore=left)
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    for name in TEXTS:
        text = templates.get_template(f"{name.lstrip('.')}.j2").render(site=site, archive=ARCHIVE)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(SOURCES / "setup.sh", folder)
    for source in (SOURCES / "make_keys.py", Path(certificates.__file__)):
        shutil.copyfile(source, folder / "setup" / source.name)
    if site.key_inside:
        keys.create_node(site.name)
        for kind, name in (("key", "node.key"), ("secret", "node.secret"), ("pub", f"{site.name}.pub")):
            shutil.copy(keys.node(site.name, kind), folder / "keys" / name)
    if site.archived:
        (folder / ARCHIVED).write_text(f"{site.archived}\n")
        save_image(site.image, folder / ARCHIVE)
    (folder / "SHA256SUMS").write_text("".join(checksums(folder)))


def save_image(image: str, file: Path) -> None:
    """Write an image into a file that ``docker load`` reads.

    Raises
    ------
    CommandError
        If the engine cannot.
    """
    program = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stderr is not None
    with gzip.open(file, "wb", compresslevel=1) as packed:
        shutil.copyfileobj(program.stdout, packed, 2**20)
    said = program.stderr.read().decode(errors="replace").strip()
    if program.wait():
        shutil.rmtree(file.parent, ignore_errors=True)
        raise CommandError(f"docker save {image} failed: {said}")


def checksums(folder: Path) -> Iterator[str]:
    """Yield a line of sha256sum for each file that the site does not write itself."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != ".env" and not name.startswith("keys/"):
            with path.open("rb") as file:
                yield f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"


def pack_tar(folder: Path) -> Path:
    """Pack the folder into a file beside it that its owner alone can read, and return that."""
    packed = folder.with_name(f"{folder.name}.tar")
    packed.touch(mode=0o600)
    with tarfile.open(packed, "w") as archive:
        archive.add(folder, arcname=f"winnow-{folder.name}")
    return packed


def next_steps(site: Site, packed: Path) -> Iterator[str]:
    """Yield what the coordinator does next."""
    yield f"Packed {packed} for {site.name}: client {site.number} at {site.superlink}."
    if site.key_inside:
        yield "The site's PRIVATE KEY is in it: hand it over in person or encrypted, then remove it here with"
        yield f"deploy/keys/nodes/{site.name}.*; who has it can pass for the site."
        yield "Admit the site:  docker compose run --rm register"
    else:
        yield "1. Send it to the site. Nothing in it is secret, but it must arrive unchanged: tell them, by telephone,"
        yield "   the line that  sha256sum SHA256SUMS  prints in that folder."
        yield f"2. They run setup.sh and send you {site.name}.pub. Compare its fingerprint by telephone:"
        yield f"   ssh-keygen -lf {site.name}.pub"
        yield f"3. Put it into {FOLDER}/public/ and admit the site:  docker compose run --rm register"
    if not site.archived:
        user = "{}:{}".format(*site.user)
        yield f"The site pulls {site.image}; it must be the image that you have built here, which runs as {user}."


def unreachable(env: Path) -> Iterator[str]:
    """Yield a note if compose, by its settings here, lets nobody but this machine reach the SuperLink.

    Where there is no ``.env``, the SuperLink may well be started in another way, and nothing is known.
    """
    if not env.exists():
        return
    bind = os.environ.get("WINNOW_BIND")
    if bind is None:
        *_, bind = "127.0.0.1", *re.findall(r"^WINNOW_BIND=(.*)$", env.read_text(encoding="utf-8"), re.MULTILINE)
    if is_loopback(bind.strip("\"' ") or "127.0.0.1"):
        yield "NOTE: so far only this machine reaches the SuperLink. Write WINNOW_BIND=0.0.0.0 into .env, close the"
        yield "   port to all but the sites (docs/deployment.md, Firewall), and run  docker compose up -d"
