"""Encoders by name (``ENCODERS``): frozen networks whose features a small head learns from; features kept in files."""

from tasks.encoders.base import ENCODERS, Encoder, EncoderError, TextEncoder
from tasks.encoders.feature_store import FeatureStore
from tasks.encoders.images import ImageEncoder
from tasks.encoders.task import EncodedTask
from tasks.encoders.texts import SentenceEncoder, WordLlama

__all__ = [
    "ENCODERS",
    "EncodedTask",
    "Encoder",
    "EncoderError",
    "FeatureStore",
    "ImageEncoder",
    "SentenceEncoder",
    "TextEncoder",
    "WordLlama",
]
