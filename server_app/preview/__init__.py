"""What the clients of a simulation will hold, before anything is trained: counts, wrong labels, a picture, a page."""

from server_app.preview.page import write_preview
from server_app.preview.survey import Survey, take_survey

__all__ = ["Survey", "take_survey", "write_preview"]
