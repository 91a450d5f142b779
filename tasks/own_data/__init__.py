"""Own data: a site's files as a task, images by folder or table, texts and numbers by table, images with masks."""

from tasks.own_data.columns import ColumnTable
from tasks.own_data.files import BadDataError
from tasks.own_data.images import ImageFolder, ImageTable
from tasks.own_data.masks import ImageMasks
from tasks.own_data.texts import TextTable

__all__ = ["BadDataError", "ColumnTable", "ImageFolder", "ImageMasks", "ImageTable", "TextTable"]
