"""Detection of clients with many wrong labels, from their loss profiles; it works without Flower."""

from strategies.detection.base import DETECTORS, Detection, Detector, detect
from strategies.detection.detectors import Official, Robust
from strategies.detection.groups import Groups
from strategies.detection.profiles import ProfileAnswer, answers_of, from_table, mean_profiles, read_profile, to_table

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
    "Groups",
    "Official",
    "ProfileAnswer",
    "Robust",
    "answers_of",
    "detect",
    "from_table",
    "mean_profiles",
    "read_profile",
    "to_table",
]
