"""One line of ``winnow doctor``."""

from dataclasses import dataclass

OK, WARN, FAIL = "OK", "WARN", "FAIL"


@dataclass(frozen=True)
class Finding:
    """What was found about a subject, and for WARN and FAIL what to do."""

    level: str
    subject: str
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert bool(self.remedy) == (self.level != OK), "a problem names its remedy, and only a problem does"

    def __str__(self) -> str:
        remedy = f"\n{'':5}-> {self.remedy}" if self.remedy else ""
        return f"{self.level:<5}{self.subject}: {self.text}{remedy}"
