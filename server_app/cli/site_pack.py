"""Site bundle, ``winnow site pack``: one folder with all that a site needs to join, without a checkout or a build.

It holds a compose file, the certificate by which the SuperLink is recognised, settings, instructions in plain words,
and either the name of an image or the image itself. The site's key is made at the site, by ``setup.sh`` in the image: a
private key that never travels cannot be copied on the way, nor by the coordinator, who could else pass for the site.
"""

import argparse
import gzip
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from server_app.cli import certificates
from server_app.cli.config import ADDRESS, CommandError, path_argument
from server_app.cli.environment import is_loopback
from server_app.cli.keys import CONTAINER_USER, FOLDER, NODE_NAME, KeyFolder
from server_app.cli.site_compose import COMPOSE, site_compose

SOURCES = Path("deploy/site")
TEXTS = ("README.md", ".env")  # templates; the rest of the folder is copied
PACKED = Path("deploy/packed")
ARCHIVE = "image.tar.gz"
INSIDE = "superlink"  # the SuperLink's name among the containers of the coordinator
EXAMPLE = "example:  winnow site pack hospital-a --superlink fl.example.org:8000 --number 0 --save"
WHY_HERE = "the image is packed with docker save, and"
OTHERWISE = "or give --image, the name by which the site can pull it"


@dataclass(frozen=True)
class Site:
    """What the coordinator decides about a site: its name, its number (partition-id) and the address it connects to."""

    name: str
    number: int
    superlink: str
    image: str
    user: tuple[int, int] = CONTAINER_USER
    archive: bool = False
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
    site = Site(args.name, args.number, args.superlink, image, CONTAINER_USER, bool(args.save), args.with_key)
    if problems := [*site_problems(site, keys, folder), *(image_problems(image) if args.save else ())]:
        raise CommandError("\n  ".join(["the site cannot be packed:", *problems]))
    site = Site(**vars(site) | {"user": image_user(image) if args.save else user_of(keys)})
    try:
        write_bundle(site, keys, folder)
        packed = pack_tar(folder) if args.tar else folder
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CommandError(f"the folder {folder} cannot be written: {error.filename}: {error.strerror}") from error
    print("\n".join(next_steps(site, packed)))
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
            f"winnow keys renew-server --host {site.host}, restart the SuperLink"
        )


def image_problems(image: str) -> Iterator[str]:
    """Yield why the engine of this machine cannot pack an image."""
    if shutil.which("docker") is None:
        yield f"--save: {WHY_HERE} there is no docker here: run this where the image was built, {OTHERWISE}"
        return
    found = inspect_image(image)
    if found.returncode:
        why = found.stderr.strip().splitlines()[-1:] or ["no such image"]
        yield f"--save: {WHY_HERE} docker says of {image}: {why[0]}; build it with  docker compose build, {OTHERWISE}"
    elif not all(part.isdecimal() for part in found.stdout.strip().split(":")) or found.stdout.count(":") != 1:
        yield f"--save: {image} does not run as a user and group of its own ({found.stdout.strip()!r}): is it Winnow's?"


def inspect_image(image: str) -> "subprocess.CompletedProcess[str]":
    """Ask the engine as whom an image runs."""
    command = ["docker", "image", "inspect", "--format", "{{.Config.User}}", image]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def image_user(image: str) -> tuple[int, int]:
    """Return the user and group as whom an image runs, which own its folders for state and data."""
    user, group = inspect_image(image).stdout.strip().split(":")
    return int(user), int(group)


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
    (folder / "docker-compose.yml").write_text(site_compose(pull="never" if site.archive else "missing"))
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
    if site.archive:
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
    if not site.archive:
        user = "{}:{}".format(*site.user)
        yield f"The site pulls {site.image}; it must be the image that you have built here, which runs as {user}."
