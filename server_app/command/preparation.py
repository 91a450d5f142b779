"""What ``winnow run`` checks and works out before it starts anything."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from server_app.command.configuration import Plan
from server_app.command.travel import left_behind
from tasks.config import CHECKED, ConfigError, digest
from tasks.issues import ERROR, Issue
from tasks.settings import FederationSettings, Settings

if TYPE_CHECKING:
    from server_app.validation.config import Validated


def check_parts(plan: Plan, simulated: bool = True) -> dict[str, Settings]:
    """Return the settings by arm, after building every part of every arm once.

    Also checked: that the machine can hold one client, and that plug-ins reach the processes of the run.

    Raises
    ------
    ConfigError
        With every error found.
    """
    return check_plan(plan, simulated).settings


def check_plan(plan: Plan, simulated: bool = True) -> "Validated":
    """Return the settings by arm and the warnings; see :func:`check_parts`."""
    from server_app.validation.config import validate

    checked = validate(plan.flat, simulated)
    settings = checked.settings
    problems = beyond_machine(next(iter(settings.values())).federation) + left_behind(plan.app, settings.values())
    if problems:
        raise ConfigError(problems)
    return checked


def beyond_machine(federation: FederationSettings) -> list[Issue]:
    """Return what one client asks for and this machine does not have: Ray would wait for it, or fail obscurely."""
    import torch

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    problems = []
    if federation.client_cpus > cpus:
        text = f"federation.client-cpus = {federation.client_cpus}: this machine has {cpus}"
        problems.append(Issue(ERROR, "federation.client-cpus", text))
    if federation.client_gpus > gpus:
        text = f"federation.client-gpus = {federation.client_gpus:g}: this machine has {gpus}"
        problems.append(Issue(ERROR, "federation.client-gpus", text))
    return problems


def describe(plan: Plan, checked: "Validated") -> str:
    """Return what would run, as text."""
    settings = checked.settings
    lines = [f"app: {plan.app}", f"federation: {federation_config(next(iter(settings.values())))}"]
    lines += [f"arms: {', '.join(settings)}"] if len(settings) > 1 else []
    lines += [f"warning: {issue.line}" for issue in checked.warnings]
    changes = [
        tomli_w.dumps({key: value}).strip().replace(f'"{key}"', key, 1) for key, value in plan.overrides().items()
    ]
    return "\n".join([*lines, "settings that differ from the app's defaults:", *(changes or ["(none)"])])


def federation_config(settings: Settings) -> str:
    """Return Flower's simulation settings: as many nodes as clients, and the share of the machine for each."""
    federation = settings.federation
    return (
        f"num-supernodes={federation.num_clients} "
        f"client-resources-num-cpus={federation.client_cpus or 1} "
        f"client-resources-num-gpus={float(federation.client_gpus)}"
    )


def data_environment(cwd: Path) -> dict[str, str]:
    """Return the data root as an absolute path: Flower's processes work in another folder."""
    return {"WINNOW_DATA": str(cwd / os.environ.get("WINNOW_DATA", "data"))}


def run_environment(plan: Plan, simulated: bool, data: Mapping[str, str]) -> dict[str, str]:
    """Return ``data`` and the promise that no other run is submitted before :func:`check_parts` has accepted the plan.

    The ServerApp then need not divide the data and try the plug-ins a second time; see :func:`server_app.app.main`.
    """
    return {**data, CHECKED: digest(plan.flat, simulated)}
