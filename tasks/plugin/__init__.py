"""Short names and import paths for everything a user can choose or bring along."""

from tasks.plugin.arguments import accepted_names, parse_args
from tasks.plugin.errors import PluginError, did_you_mean, explain
from tasks.plugin.importing import is_own
from tasks.plugin.registry import Entry, Registry

__all__ = ["Entry", "PluginError", "Registry", "accepted_names", "did_you_mean", "explain", "is_own", "parse_args"]
