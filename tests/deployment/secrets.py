"""What must never be shown: the contents of private files, in pieces that would be recognised in a log."""

from server_app.cli.keys import KeyFolder

SHORTEST = 20


def secret_texts(keys: KeyFolder) -> set[str]:
    """Return every line of every private key and shared secret in a folder."""
    files = [path for path in keys.path.rglob("*") if path.suffix in (".key", ".secret")]
    lines = {line for path in files for line in path.read_text().splitlines() if "-----" not in line}
    return {line for line in lines if len(line) >= SHORTEST}
