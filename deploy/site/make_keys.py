"""Keys of a site, made where they stay: run by setup.sh in the image, as ``make_keys.py FOLDER NAME USER GROUP``.

What is there is kept. The private key and the secret are given to the containers' user, who alone can read them.
"""

import base64
import hashlib
import os
import sys
from pathlib import Path

import certificates  # beside this file in the bundle


def make_keys(folder: Path, name: str, owner: tuple[int, int]) -> list[str]:
    """Make the keys that are missing and return what to tell the site's operator; raise SystemExit if one is lost."""
    key, secret, public = folder / "node.key", folder / "node.secret", folder / f"{name}.pub"
    there = [file.exists() for file in (key, secret, public)]
    if any(there) and not all(there):
        raise SystemExit(f"of {key.name}, {secret.name} and {public.name} one is missing: bring it back, or remove all")
    if not any(there):
        private_bytes, public_bytes = certificates.new_node()
        write(key, private_bytes, 0o600)
        write(secret, certificates.new_secret(), 0o600)
        write(public, public_bytes, 0o644)
    for file in (key, secret, public):
        os.chown(file, *owner)
    folder.chmod(0o755)  # the public key is there to be sent
    made = "kept" if all(there) else "made"
    return [f"The site's keys are {made}. The public one: keys/{public.name}", f"Fingerprint: {fingerprint(public)}"]


def write(file: Path, content: bytes, mode: int) -> None:
    """Write a new file that is never, not even for a moment, readable by others."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)


def fingerprint(public: Path) -> str:
    """Return the fingerprint of a public key as ``ssh-keygen -lf`` shows it."""
    digest = hashlib.sha256(base64.b64decode(public.read_text().split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


if __name__ == "__main__":
    print("\n".join(make_keys(Path(sys.argv[1]), sys.argv[2], (int(sys.argv[3]), int(sys.argv[4])))))
