"""Can a node on this machine connect to its SuperLink: for ``winnow doctor --superlink``, which a site runs."""

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from tasks.issues import ERROR, INFO, WARNING, Issue

AHEAD, BEHIND = 5, 305
"""Seconds by which a node's clock may be wrong: it signs the time, and Flower's SuperLink takes no other signature."""


def superlink(address: str, authority: Path) -> Iterator[Issue]:
    """Check that the SuperLink at ``host:port`` answers, proves by ``authority`` to be the right one, and has our time.

    Parameters
    ----------
    address
        Host and port.
    authority
        The federation's certificate.
    """
    subject = f"SuperLink {address}"
    if not authority.is_file():
        yield Issue(ERROR, subject, f"no certificate {authority}", "name the federation's ca.crt, --root-certificates")
        return
    try:
        ahead = seconds_ahead(address, authority)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = str(error.reason if isinstance(error, urllib.error.URLError) else error)
        yield Issue(ERROR, subject, reason, "compare address and ca.crt with the coordinator's, and the firewall")
        return
    yield Issue(INFO, subject, "answers and proves to be the right one")
    yield clock(ahead)


def seconds_ahead(address: str, authority: Path) -> float:
    """Return by how many seconds this machine's clock is ahead of the SuperLink's, exact to about a second.

    Raises
    ------
    OSError
        If there is no connection, or another server's certificate.
    ValueError
        If the answer names no time.
    """
    context = ssl.create_default_context(cafile=str(authority))
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(f"https://{address}/health", timeout=10.0) as reply:
        stated = reply.headers.get("Date", "")
    return time.time() - 0.5 - parsedate_to_datetime(stated).timestamp()  # it is rounded down to the second


def clock(ahead: float) -> Issue:
    """Judge a clock that is ``ahead`` seconds ahead of the SuperLink's."""
    text = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the SuperLink's"
    remedy = f"let both machines keep time by NTP: a node {AHEAD} s ahead or {BEHIND} s behind is refused"
    if not -BEHIND < ahead < AHEAD:
        return Issue(ERROR, "clock", text, remedy)
    return Issue(WARNING, "clock", text, remedy) if abs(ahead) > AHEAD / 2 else Issue(INFO, "clock", text)
