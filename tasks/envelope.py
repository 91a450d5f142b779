"""What accompanies every message from the server to a client, beside the model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tasks.told import ToldError

RECORD = "winnow"
ARRAYS = "flat"
LARGEST = 2**31 - 1


class EnvelopeError(ToldError):
    """What accompanies a message is not an envelope; server and node may run different versions of the app."""


@dataclass(frozen=True)
class Envelope:
    """Addressee, round and settings of one message.

    ``client`` is -1 where the server does not know the client's number. ``overrides`` are the settings in which this
    arm of the run differs from the run configuration (JSON); ``layout`` is the header of the flat model (empty when
    none travels); ``run_name`` keeps the states of different runs apart; ``run_dir`` is sent in a simulation only;
    ``checkpoint_round`` is the oldest round to which the run may still go back.
    """

    client: int
    server_round: int = 0
    num_rounds: int = 0
    role: str = "unknown"
    overrides: str = "{}"
    layout: str = ""
    run_name: str = ""
    run_dir: str = ""
    checkpoint_round: int = 0

    def record(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, object]) -> "Envelope":
        """Return the envelope behind :meth:`record`'s values.

        Raises
        ------
        EnvelopeError
            If a field is missing, of another type, or a number out of range.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            value = record.get(item.name)
            if type(value) is not item.type:
                raise EnvelopeError(f"the message has no {item.name} that is {_article(item.type)}, got {value!r:.100}")
            low = -1 if item.name == "client" else 0
            if isinstance(value, int) and not low <= value <= LARGEST:
                raise EnvelopeError(f"{item.name} of the message must lie in {low}..{LARGEST}, got {value}")
            values[item.name] = value
        return cls(**values)

    def changes(self) -> dict[str, bool | int | float | str]:
        """Return the overridden settings.

        Raises
        ------
        EnvelopeError
            If they are not one JSON object.
        """
        try:
            found = json.loads(self.overrides)
        except (ValueError, RecursionError) as error:
            raise EnvelopeError(f"the overridden settings of the message are not JSON: {error}") from error
        if not isinstance(found, dict):
            raise EnvelopeError("the overridden settings of the message are not a JSON object")
        return found


def _article(kind: object) -> str:
    return "a whole number" if kind is int else "a text"
