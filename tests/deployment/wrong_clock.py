"""A clock that is wrong by as many seconds as the file $WINNOW_TEST_CLOCK says. Copied to be a ``sitecustomize.py``.

Python imports that at its start from PYTHONPATH, so only what a test starts so is concerned. Flower and ``time.time``
see the wrong time; sleeping and waiting are as ever.
"""

import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from flwr.supercore import date

true_time, true_time_ns, true_now = time.time, time.time_ns, date.now


def ahead() -> float:
    """By how many seconds this clock is ahead, at this moment."""
    return float(Path(os.environ["WINNOW_TEST_CLOCK"]).read_text())


def wrong_now() -> datetime:
    """Flower's now, in the wrong time."""
    return true_now() + timedelta(seconds=ahead())


if "WINNOW_TEST_CLOCK" in os.environ:
    time.time = lambda: true_time() + ahead()
    time.time_ns = lambda: true_time_ns() + int(1e9 * ahead())
    for module in list(sys.modules.values()):  # also those that have imported it by now
        if getattr(module, "now", None) is true_now:
            module.now = wrong_now  # type: ignore[attr-defined]
