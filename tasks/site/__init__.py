"""A site's own files as a task: images by folder, images by table, texts by table, images with masks."""

from tasks.site.folder import ImageFolder
from tasks.site.masks import ImageMasks
from tasks.site.problems import BadDataError
from tasks.site.table import ImageTable
from tasks.site.texts import TextTable

__all__ = ["BadDataError", "ImageFolder", "ImageMasks", "ImageTable", "TextTable"]
