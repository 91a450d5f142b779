"""Compose file of a site's bundle: docker-compose.site.yml in one piece, without a build, with the bundle's paths."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server_app.cli.config import CommandError

COMPOSE = Path("docker-compose.site.yml")
HEAD = """\
# One site of a federation: SuperNode and executor of the ClientApp. It connects to the coordinator and opens no port.
# Made by `winnow site pack`; the settings are in .env, and README.md goes through it.
"""
SECRETS = {"ca.crt": "ca.crt", "node.key": "keys/node.key", "node.secret": "keys/node.secret"}


def site_compose(name: str, pull: str, compose: Path = COMPOSE) -> str:
    """Return the text of the compose file.

    Parameters
    ----------
    name
        The site's name; containers and volumes are called by it, so that two sites of one machine do not meet.
    pull
        When the image is pulled, in compose's words: ``never`` where it comes with the bundle, else ``missing``.
    compose
        The file for a site in the checkout.

    Raises
    ------
    CommandError
        If the file is not made as this expects.
    """
    import yaml  # slow, as all that only some commands need

    declared = _load(compose)
    services = {name: extended(service, compose.parent) for name, service in declared["services"].items()}
    for service in services.values():
        service.pop("build", None)
        service["pull_policy"] = pull
        service["volumes"] = [packed_place(volume) for volume in service.get("volumes", [])]
    if declared["secrets"].keys() != SECRETS.keys():
        raise CommandError(
            f"{compose}: expected the secrets {', '.join(SECRETS)}, got {', '.join(declared['secrets'])}"
        )
    secrets = {name: {"file": file} for name, file in SECRETS.items()}
    whole = json.loads(
        json.dumps({**declared, "name": f"winnow-{name}", "services": services, "secrets": secrets})
    )  # nothing occurs twice
    text: str = yaml.safe_dump(whole, sort_keys=False, width=120)
    return HEAD + text


def extended(service: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a service with what it extends: mappings are merged, of all else its own counts, as files here need it.

    >>> extended({"image": "a", "environment": {"X": "1"}}, Path())
    {'image': 'a', 'environment': {'X': '1'}}
    """
    own = dict(service)
    base = own.pop("extends", None)
    if base is None:
        return own
    if isinstance(base, str):
        raise CommandError(f"expected `extends` with a file, got {base}")
    file = folder / base["file"]
    found = _load(file)["services"][base["service"]]
    if isinstance(found.get("extends"), str):
        found["extends"] = {"file": file.name, "service": found["extends"]}
    return _merged(extended(found, file.parent), own)


def packed_place(volume: str) -> str:
    """Return a mount with the place that a file of the checkout has in the bundle: code lies in one folder there.

    >>> packed_place("./tasks:/app/tasks:ro"), packed_place("../tasks/a.py:/a.py:ro"), packed_place("state:/state")
    ('./app/tasks:/app/tasks:ro', './app/tasks/a.py:/a.py:ro', 'state:/state')
    """
    return re.sub(r"^\.\.?/", "./app/", volume)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _merged(base[name], own[name]) for name in base.keys() & own.keys() if isinstance(own[name], Mapping)}
    mounted = {"volumes": [*base["volumes"], *own["volumes"]]} if "volumes" in base.keys() & own.keys() else {}
    return {**base, **own, **both, **mounted}


def _load(file: Path) -> dict[str, Any]:
    import yaml

    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CommandError(f"{file} cannot be read: {error}; run this in the checkout of the coordinator") from error
