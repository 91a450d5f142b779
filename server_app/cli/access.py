"""Access to a SuperLink: does it answer, is it the right one, whom does it let ask, and by what proof?"""

import base64
import json
import os
import secrets
from pathlib import Path

from server_app.cli import guarded
from server_app.cli.config import CommandError
from server_app.cli.environment import ask, probe

TOKEN = "superlink.token"
ACCOUNT = "flower.account-auth.{}.{}"  # where ``flwr`` looks up how it proves who asks


def secret_file(path: Path) -> Path:
    """Make a file with a new secret that this user alone can read, and return it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


def credentials(address: str, token: str) -> str:
    """Return the credentials.yaml by which ``flwr`` shows the token to the SuperLink at ``address``.

    Flower's command line knows no other account than one of OpenID Connect.
    """
    account = {"authn-type": "oidc", "oidc-access-token": token, "oidc-refresh-token": token}
    return json.dumps(  # JSON is YAML
        {ACCOUNT.format(address, key): base64.b64encode(value.encode()).decode() for key, value in account.items()}
    )


def trouble(address: str, authority: Path | None) -> str:
    """Return why no server answers at ``host:port``, or an empty string if one does and proves to be the right one."""
    try:
        with probe(address, authority):
            return ""
    except OSError as error:
        return str(error)


def admits(address: str, authority: Path | None, token: str = "") -> bool:
    """Tell whether the SuperLink at ``host:port`` lets those ask who show this token, or none.

    One that is not run by guarded.py asks for no token of ours, and admits everybody.

    Raises
    ------
    OSError
        If there is no answer, or from another server.
    """
    shown = {"authorization": f"Bearer {token}"} if token else {}
    with ask(address, authority, "/v1/control/list-runs", body=b"", timeout=10.0, headers=shown) as reply:
        return reply.is_success or reply.headers.get("www-authenticate") != guarded.REALM


def why_refused(address: str, authority: Path | None, token: Path | None) -> str:
    """Return why the SuperLink at ``host:port`` does not serve who holds the token in a file, or an empty string.

    Raises
    ------
    CommandError
        If the file cannot be read.
    """
    try:
        if admits(address, authority, token_in(token)):
            return ""
    except OSError as error:
        return f"does not answer: {error}"
    given = f"the token in {token} is not theirs" if token else "no token was given"
    return f"serves its operators only, and {given}: name their file with WINNOW_SUPERLINK_TOKEN=operator.token"


def token_in(file: Path | None) -> str:
    """Return the token that a file holds; of no file, none.

    Raises
    ------
    CommandError
        If it cannot be read.
    """
    try:
        return file.read_text() if file else ""
    except OSError as error:
        raise CommandError(f"the token of the operators cannot be read: {file}: {error.strerror}") from error
