"""Who has many wrong labels? Detectors that read the loss profiles of clients; they work without Flower."""

from strategies.detection.answers import ProfileAnswer, answers_of, from_table, mean_profiles, to_table
from strategies.detection.base import DETECTORS, Detection, Detector, detect
from strategies.detection.official import Official
from strategies.detection.profiles import read_profile
from strategies.detection.robust import Robust

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
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
