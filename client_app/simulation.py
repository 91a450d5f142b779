"""Whether this process is part of a simulation."""

import sys


def is_simulated() -> bool:
    """Tell whether this process is a Ray worker, so that it shares the server's file system."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
