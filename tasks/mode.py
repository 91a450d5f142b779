"""Simulation or deployment: what kind of run this is.

Each side finds out for itself, once: the server at its entry (:func:`server_app.app.mode_of`), a client for every
message (:func:`client_app.simulation.own_mode`). From there on the mode is handed on. It never travels: a node that
believed the server about it would give away what only a simulated client may tell.
"""

from enum import Enum


class Mode(Enum):
    """Where the clients of a run are."""

    SIMULATION = "simulation"
    """All on the server's machine, processes of Ray that share its files; the true labels are known."""

    DEPLOYMENT = "deployment"
    """Real nodes, each with an operator of its own, who alone says what is read, written and told."""
