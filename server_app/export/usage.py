"""Usage of an exported model: Python code that needs neither Winnow nor a guess, for its model card.

It reads a file as training did and asks the exported model, with NumPy, Pillow for images, and torch or onnxruntime.
For images it covers what is usual, 8 bits and nothing transparent; ``winnow predict`` covers the rest.
"""

from collections.abc import Mapping
from typing import Any

from tasks.inference import IMAGES, TABLE, TEXTS

HEAD = """import json
{imports}
import numpy as np
{libraries}
manifest = json.load(open("manifest.json", encoding="utf-8"))
how = manifest["preprocessing"]

"""
IMAGE = """
def read(path):
    mode = "L" if how["channels"] == 1 else "RGB"
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode not in {"1", "L", mode} or image.has_transparency_data:
        raise SystemExit(f"{path}: 8 bits of grey, or of colours where the model takes them, are expected here")
    image = image.convert(mode)
{scale}
    values = np.asarray(image, np.uint8)
    values = np.rint(values * (how["values"][1] / 255)).astype(np.uint8)
    return values[None, None] if mode == "L" else values.transpose(2, 0, 1)[None].copy()
"""
STRETCH = """    image = image.resize((how["width"], how["height"]), Image.Resampling.BILINEAR)"""
CENTRE = """    short, size = round(how["height"] * 8 / 7), how["height"]
    scale = short / min(image.size)
    wide, high = (short if side == min(image.size) else int(side * scale) for side in image.size)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    image = image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))"""
TEXT = r"""
def words_of(text):
    nfc = lambda part: unicodedata.normalize("NFC", part)
    lower = nfc(nfc(text).lower()).replace("i\u0307", "i")
    marks = "".join(sorted(sign for sign in {*lower} if unicodedata.category(sign).startswith("M")))
    return re.findall(rf"\w[\w{marks}]*+(?:[\u200c\u200d]+[\w{marks}]++)*+", lower)


def read(path):
    words = words_of(open(path, encoding="utf-8-sig").read())[: how["words"]]
    pairs = [" ".join(pair) for pair in zip(words, words[1:])] if how["pairs"] else []
    numbers = [1 + zlib.crc32(token.encode()) % (how["vocabulary"] - 1) for token in words + pairs]
    length = 2 * how["words"] - 1 if how["pairs"] else how["words"]
    return np.array([numbers + [how["padding"]] * (length - len(numbers))], np.int32)
"""
ROWS = """
def read(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return np.array([features(row) for row in csv.DictReader(file, delimiter=how["delimiter"])], np.float32)


def features(row):
    cells = {name.strip(): unicodedata.normalize("NFC", cell.strip()) for name, cell in row.items()}
    numbers, categories = how["statistics"]["numbers"], how["statistics"]["categories"]
    missing = {name: cells[name] in how["missing"] for name in [*numbers, *categories]}
    found = []
    for name, known in numbers.items():
        value = known["mean"] if missing[name] else float(cells[name].replace(how["decimal"], "."))
        found.append(max(-how["farthest"], min(how["farthest"], (value - known["mean"]) / (known["deviation"] or 1))))
    found += [float(missing[name]) for name, known in numbers.items() if known["gaps"]]
    for name, known in categories.items():
        found += [float(not missing[name] and cells[name] == value) for value in known["values"]]
        found += [float(missing[name])] if known["gaps"] else []
    return found
"""
ANSWERS = {
    "onnx": """
def predict(inputs):
    session = onnxruntime.InferenceSession("model.onnx")
    return session.run(["probabilities"], {"inputs": inputs})[0]
""",
    "torch-export": """
def predict(inputs):
    with torch.no_grad():
        return torch.export.load("model.pt2").module()(torch.from_numpy(inputs))[1].numpy()
""",
    "torchscript": """
def predict(inputs):
    with torch.no_grad():
        return torch.jit.load("model.torchscript")(torch.from_numpy(inputs))[1].numpy()
""",
}
TAIL = """
for path in sys.argv[1:]:
    for probabilities in predict(read(path)):
        best = int(probabilities.argmax())
        print(path, manifest["classes"][best], *(f"{value:.9g}" for value in probabilities), sep="\\t")
"""
READERS = {
    IMAGES: (IMAGE, ("sys",), "from PIL import Image, ImageOps"),
    TEXTS: (TEXT, ("re", "sys", "unicodedata", "zlib"), ""),
}
READERS[TABLE] = (ROWS, ("csv", "sys", "unicodedata"), "")
LIBRARIES = {"onnx": "import onnxruntime", "torch-export": "import torch", "torchscript": "import torch"}


def usage(manifest: Mapping[str, Any], formats: tuple[str, ...]) -> str:
    """Return a program that predicts the files on its command line with the first whole format among ``formats``.

    Empty if there is none, or an encoder or a task of somebody's own stands before the model.
    """
    chosen = next((name for name in formats if name in ANSWERS), None)
    how = manifest["preprocessing"]
    if chosen is None or how is None or manifest["encoder"] or manifest["labels_pixels"]:
        return ""
    if how["kind"] not in READERS or how.get("header"):  # columns without a line of names are the task's own affair
        return ""
    reader, modules, library = READERS[how["kind"]]
    libraries = "\n".join(sorted(filter(None, (library, LIBRARIES[chosen])), key=str.lower)) + "\n"
    imports = "\n".join(f"import {name}" for name in modules)
    body = reader.replace("{scale}", CENTRE if how.get("scaling") == "centre" else STRETCH)
    return HEAD.format(imports=imports, libraries=libraries) + body + "\n" + ANSWERS[chosen] + "\n" + TAIL
