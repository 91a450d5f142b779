"""Who has many wrong labels? Detectors that read the loss profiles of clients; they work without Flower."""

from strategies.detection.answers import answers_since, mean_profiles, no_answers, with_answers
from strategies.detection.base import DETECTORS, Detection, Detector, detect
from strategies.detection.official import Official
from strategies.detection.profiles import read_profile
from strategies.detection.robust import Robust

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
    "Official",
    "Robust",
    "answers_since",
    "detect",
    "mean_profiles",
    "no_answers",
    "read_profile",
    "with_answers",
]
