"""Detection of clients with many wrong labels, from their loss profiles; it works without Flower."""

from strategies.detection.base import DETECTORS, Detection, Detector, RateDetector, detect
from strategies.detection.detectors import Official, Robust
from strategies.detection.groups import Groups
from strategies.detection.noise_rates import NoiseRate
from strategies.detection.profiles import ProfileAnswer, answers_of, from_table, mean_profiles, read_profile, to_table
from strategies.detection.reports import Profile, latest, mean_rates, read_report, without_trend

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
    "Groups",
    "NoiseRate",
    "Official",
    "Profile",
    "ProfileAnswer",
    "RateDetector",
    "Robust",
    "answers_of",
    "detect",
    "from_table",
    "latest",
    "mean_profiles",
    "mean_rates",
    "read_profile",
    "read_report",
    "to_table",
    "without_trend",
]
