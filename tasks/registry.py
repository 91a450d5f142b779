"""Registry of the built-in tasks: importing it fills ``TASKS``; a task of your own is named by its import path."""

from tasks.base import TASKS
from tasks.datasets.agnews import AgNews
from tasks.images import Cifar10, Cifar100, Digits
from tasks.own_data import ColumnTable, ImageFolder, ImageMasks, ImageTable, TextTable

__all__ = [
    "TASKS",
    "AgNews",
    "Cifar10",
    "Cifar100",
    "ColumnTable",
    "Digits",
    "ImageFolder",
    "ImageMasks",
    "ImageTable",
    "TextTable",
]
