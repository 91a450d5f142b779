"""Garbage collection of a command: a process that imports much and ends soon need not search all of it for garbage.

Python looks for circles of objects that nobody uses after every 700 new ones, now and then among all that there are.
What is imported stays: to visit it again and again is a seventh of the time that importing torch takes.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Search for no garbage while the block runs, which should be imports and short work."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def end_without_search() -> None:
    """Keep Python's end from a search for garbage, unless Triton was imported, which prints what it then misses."""
    if "triton" not in sys.modules:
        gc.freeze()
