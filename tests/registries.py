"""The registries themselves: all that can be chosen, as it is in a process that has imported everything."""

import importlib

from server_app.cli.catalog import PACKAGES
from tasks.plugins import Registry


def registries() -> list[Registry[object]]:
    """The registry of every kind, once each, in the order of ``winnow list``."""
    values = [value for package in PACKAGES for value in vars(importlib.import_module(package)).values()]
    return list({id(value): value for value in values if isinstance(value, Registry)}.values())
