"""The built-in tasks by name; a task of your own is named by its import path instead."""

from tasks.base import Task
from tasks.cifar import Cifar10, Cifar100
from tasks.image import Digits
from tasks.plugin import Registry
from tasks.site import ImageFolder, ImageMasks, ImageTable, TextTable

TASKS = Registry("task", Task)

TASKS.register("digits", "Alpaydin and Kaynak, Kybernetika 1998")(Digits)
TASKS.register("cifar-10", "Krizhevsky, technical report, University of Toronto 2009")(Cifar10)
TASKS.register("cifar-100", "Krizhevsky, technical report, University of Toronto 2009")(Cifar100)
TASKS.register("image-folder")(ImageFolder)
TASKS.register("image-csv")(ImageTable)
TASKS.register("text-csv")(TextTable)
TASKS.register("image-masks")(ImageMasks)
