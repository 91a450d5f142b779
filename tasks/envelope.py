"""What accompanies every message from the server to a client, beside the model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RECORD = "winnow"
ARRAYS = "flat"


@dataclass(frozen=True)
class Envelope:
    """Addressee, round and settings of one message.

    ``overrides`` are the settings in which this arm of the run differs from the run configuration (JSON);
    ``layout`` is the header of the flat model (empty when none travels); ``run_name`` keeps the
    states of different runs apart; ``run_dir`` is sent in a simulation only.
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
        """Return the envelope behind :meth:`record`'s values."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def changes(self) -> dict[str, bool | int | float | str]:
        """Return the overridden settings."""
        return dict(json.loads(self.overrides))
