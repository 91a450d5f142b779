"""Registry of the built-in tasks: importing it fills ``TASKS``; a task of your own is named by its import path."""

from tasks.base import TASKS
from tasks.datasets.agnews import AgNews
from tasks.datasets.idx import FashionMnist, Mnist
from tasks.datasets.isic import Isic2017
from tasks.datasets.web import Animal10N, Clothing1M, WebVisionMini
from tasks.images import Cifar10, Cifar100, Digits
from tasks.own_data import ColumnTable, ImageFolder, ImageMasks, ImageTable, TextTable

__all__ = [
    "TASKS",
    "AgNews",
    "Animal10N",
    "Cifar10",
    "Cifar100",
    "Clothing1M",
    "ColumnTable",
    "Digits",
    "FashionMnist",
    "ImageFolder",
    "ImageMasks",
    "ImageTable",
    "Isic2017",
    "Mnist",
    "TextTable",
    "WebVisionMini",
]
