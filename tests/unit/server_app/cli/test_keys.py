"""Keys and certificates: who may read them, that they work, and that none is replaced by accident."""

import re
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server_app.cli import certificates, main
from server_app.cli.config import CommandError
from server_app.cli.keys import KeyFolder

NODES = ("node-0", "node-1")


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    folder.create(["fl.example.org"], NODES)
    return folder


def content(folder: KeyFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def shake_hands(server: KeyFolder, authority: Path, name: str) -> None:
    """Let Python's TLS connect to a server with these keys as a client that trusts ``authority``."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(server.superlink("crt"), server.superlink("key"))
    ours, theirs = socket.socketpair()
    trusting = ssl.create_default_context(cafile=str(authority))

    def serve() -> None:
        try:
            serving.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        trusting.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


def test_only_the_owner_can_read_what_is_secret(keys: KeyFolder) -> None:
    found = {path.relative_to(keys.path).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in content(keys)}
    public = {"ca.crt", "superlink.crt", "public/node-0.pub", "public/node-1.pub"}
    secret = {"ca.key", "superlink.key", "superlink.secret", "operator.token"}
    secret |= {f"nodes/{name}.{kind}" for name in NODES for kind in ("key", "secret")}
    assert found == dict.fromkeys(public, 0o644) | dict.fromkeys(secret, 0o600)
    folders = [keys.path, keys.path / "nodes", keys.path / "public"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 3


@pytest.mark.parametrize("name", ["superlink", "localhost", "127.0.0.1", "fl.example.org"])
def test_the_superlink_is_recognised_under_each_of_its_names(keys: KeyFolder, name: str) -> None:
    shake_hands(keys, keys.authority, name)


def test_a_certificate_of_another_name_or_authority_is_refused(keys: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'elsewhere\.org'"):
        shake_hands(keys, keys.authority, "elsewhere.org")
    other = KeyFolder(tmp_path / "other")
    other.create([], [])
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands(keys, other.authority, "localhost")


def test_a_node_s_keys_belong_together_and_are_what_flower_accepts(keys: KeyFolder) -> None:
    private = serialization.load_ssh_private_key(keys.node("node-0", "key").read_bytes(), None)
    public = serialization.load_ssh_public_key(keys.node("node-0", "pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public
    assert len({keys.node(name, kind).read_bytes() for name in NODES for kind in ("key", "secret", "pub")}) == 6


def test_what_is_there_is_kept_and_what_is_missing_is_made(keys: KeyFolder) -> None:
    before = content(keys)
    lines = keys.create(["fl.example.org"], [*NODES, "node-2"])
    assert [line.split()[0] for line in lines] == ["kept", "kept", "kept", "kept", "kept", "made"]
    after = content(keys)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 3


def test_a_name_that_the_certificate_lacks_is_an_error_with_the_remedy(keys: KeyFolder) -> None:
    with pytest.raises(
        CommandError,
        match=r"not valid for new\.org: winnow keys renew-server --host fl\.example\.org --host .*new\.org",
    ):
        keys.create(["new.org"], [])


@pytest.mark.parametrize("missing", ["superlink.key", "nodes/node-0.key", "public/node-0.pub", "superlink.crt"])
def test_a_part_that_is_missing_is_never_replaced(keys: KeyFolder, missing: str) -> None:
    (keys.path / missing).unlink()
    before = content(keys)
    with pytest.raises(CommandError, match=f"{re.escape(missing)} is missing: bring it back"):
        keys.create([], NODES)
    assert content(keys) == before


def test_the_authority_s_key_may_be_away_until_it_is_needed(keys: KeyFolder) -> None:
    (keys.path / "ca.key").rename(keys.path / "away")
    assert keys.create([], NODES)[0].startswith("kept")
    with pytest.raises(CommandError, match=r"ca\.key is not here: bring it back"):
        keys.renew_server([])


def test_a_renewed_certificate_has_the_same_names_a_new_key_and_is_recognised(keys: KeyFolder) -> None:
    before = content(keys)
    assert "fl.example.org" in keys.renew_server([])
    changed = {path.name for path, old in before.items() if path.read_bytes() != old}
    assert changed == {"superlink.key", "superlink.crt"}
    shake_hands(keys, keys.authority, "fl.example.org")
    said = keys.renew_server(["fl2.example.org"])
    assert "NOT valid any more for fl.example.org" in said
    assert said.endswith("winnow keys renew-server --host fl.example.org --host fl2.example.org")
    shake_hands(keys, keys.authority, "fl2.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(keys, keys.authority, "fl.example.org")


def test_only_the_renewed_node_gets_new_keys(keys: KeyFolder) -> None:
    before = content(keys)
    keys.renew_node("node-1")
    changed = {path.name for path, old in before.items() if path.read_bytes() != old}
    assert changed == {"node-1.key", "node-1.secret", "node-1.pub"}
    with pytest.raises(CommandError, match=r"no node 'node-7'.*node-0, node-1"):
        keys.renew_node("node-7")


def test_the_operators_token_comes_to_keys_of_before_and_is_replaced_alone(keys: KeyFolder) -> None:
    keys.operator.unlink()
    before = content(keys)
    assert any(line.startswith("made     token of the operators") for line in keys.create([], NODES))
    first = keys.operator.read_text()
    assert content(keys) == before | {keys.operator: first.encode()}
    keys.renew_operator()
    assert len(keys.operator.read_text()) == len(first) > 40
    assert keys.operator.read_text() != first


def test_a_coordinator_without_sites_of_its_own_has_an_empty_folder_for_their_public_keys(tmp_path: Path) -> None:
    env, folder = tmp_path / ".env", tmp_path / "keys"
    assert main(["keys", "--folder", str(folder), "create", "--nodes", "0", "--env", str(env)]) == 0
    assert "COMPOSE_PROFILES" not in env.read_text()
    assert list((folder / "public").iterdir()) == []
    assert not (folder / "nodes").exists()


@pytest.mark.parametrize("name", ["", "../evil", "a/b", "A", "-x", "a b", "x" * 64])
def test_the_name_of_a_node_leads_nowhere_else(keys: KeyFolder, name: str) -> None:
    with pytest.raises(CommandError, match="the name of a node is made of"):
        keys.create_node(name)


@pytest.mark.parametrize(("days", "said"), [(400, ""), (20, "<- renew it"), (-2, "<- EXPIRED")])
def test_an_end_that_is_near_is_said(keys: KeyFolder, days: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CLOCK_SKEW", timedelta(days=30))
    monkeypatch.setattr(certificates, "SERVER_DAYS", days)
    keys.renew_server([])
    [line] = [line for line in keys.describe() if line.startswith("SuperLink")]
    assert f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" in line
    assert line.partition(")")[2].strip() == said


def test_the_authority_signs_servers_only(keys: KeyFolder) -> None:
    authority = x509.load_pem_x509_certificate(keys.authority.read_bytes())
    limits = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)
    server = x509.load_pem_x509_certificate(keys.superlink("crt").read_bytes())
    server.verify_directly_issued_by(authority)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_command_makes_keys_and_tells_compose_its_user_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    monkeypatch.setattr("os.getegid", lambda: 5678)
    assert main(["keys", "create", "--nodes", "1", "--host", "fl.example.org", "--env", ".env"]) == 0
    assert (tmp_path / ".env").read_text() == "WINNOW_UID=1234\nWINNOW_GID=5678\nCOMPOSE_PROFILES=sites\n"
    (tmp_path / ".env").write_text("mine")
    assert main(["keys", "create", "--nodes", "2", "--env", ".env"]) == 0
    assert (tmp_path / ".env").read_text() == "mine"
    assert main(["keys", "node", "hospital-a"]) == main(["keys", "renew-node", "hospital-a"]) == 0
    assert main(["keys", "show"]) == 0
    assert "hospital-a, node-0, node-1" in capsys.readouterr().out
    assert main(["keys", "--folder", "nowhere", "show"]) == 2
    assert "winnow keys create" in capsys.readouterr().err
