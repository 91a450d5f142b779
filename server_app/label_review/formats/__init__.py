"""Formats of annotation tools: an audit goes out with what the model suggests, and decisions come back."""

from server_app.label_review.formats.argilla import Argilla
from server_app.label_review.formats.base import Format, Found
from server_app.label_review.formats.cvat import Cvat
from server_app.label_review.formats.fiftyone import FiftyOne
from server_app.label_review.formats.label_studio import LabelStudio
from server_app.label_review.formats.spreadsheet import Spreadsheet

FORMATS: dict[str, Format] = {each.name: each for each in (LabelStudio(), Cvat(), Argilla(), FiftyOne(), Spreadsheet())}

__all__ = ["FORMATS", "Argilla", "Cvat", "FiftyOne", "Format", "Found", "LabelStudio", "Spreadsheet"]
