"""Who has many wrong labels? Detectors that read the loss profiles of clients; they work without Flower."""

from strategies.detection.base import DETECTORS, Detection, Detector, detect
from strategies.detection.official import Official
from strategies.detection.profiles import read_profile
from strategies.detection.robust import Robust

__all__ = ["DETECTORS", "Detection", "Detector", "Official", "Robust", "detect", "read_profile"]
