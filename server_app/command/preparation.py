"""What ``winnow run`` checks and works out before it starts anything."""

import os
from pathlib import Path

import tomli_w

from server_app.command.configuration import Plan
from server_app.command.travel import left_behind
from tasks.config import ConfigError
from tasks.settings import FederationSettings, Settings


def check_parts(plan: Plan, simulated: bool = True) -> dict[str, Settings]:
    """Return the settings by arm, after building every part of every arm once.

    Also checked: that the machine can hold one client, and that plug-ins reach the processes of the run.

    Raises
    ------
    ConfigError
        With every error found.
    """
    from server_app.checks import check_arms

    checked = check_arms(plan.flat, simulated)
    problems = beyond_machine(next(iter(checked.values())).federation) + left_behind(plan.app, checked.values())
    if problems:
        raise ConfigError(problems)
    return checked


def beyond_machine(federation: FederationSettings) -> list[str]:
    """Return what one client asks for and this machine does not have: Ray would wait for it, or fail obscurely."""
    import torch

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    problems = []
    if federation.client_cpus > cpus:
        problems.append(f"federation.client-cpus = {federation.client_cpus}: this machine has {cpus}")
    if federation.client_gpus > gpus:
        problems.append(f"federation.client-gpus = {federation.client_gpus:g}: this machine has {gpus}")
    return problems


def describe(plan: Plan, checked: dict[str, Settings]) -> str:
    """Return what would run, as text."""
    from server_app.remarks import remarks

    lines = [f"app: {plan.app}", f"federation: {federation_config(next(iter(checked.values())))}"]
    lines += [f"arms: {', '.join(checked)}"] if len(checked) > 1 else []
    lines += [f"warning: {text}" for text in remarks(checked)]
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
