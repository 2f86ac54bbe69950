"""Find objects in images: pictures with boxes, and a JSON of all detections."""

import json
import os
import sys
from pathlib import Path

from libra_keras import atomic
from libra_keras.cli.runs import add_run_arguments, load_detector

EXAMPLES = """examples:
  libra-keras predict runs/mine photo.jpg --to found
      found/photo.png has the boxes drawn, found/detections.json their numbers
  libra-keras predict runs/mine my_photos/test --to found --score 0.5
      every image of a folder, surer boxes only
"""
NUMBERS = "detections.json"
SOFTWARE = "libra-keras predict"  # as pictures say, so that a later one may replace them
LONGEST = 200  # bytes of a name; most disks have 255, and an unfinished file has a longer name
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def add_arguments(parser):
    """Adds the options of the verb."""
    add_run_arguments(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, or folders of them")
    parser.add_argument("--to", metavar="FOLDER", required=True, help="of pictures and JSON")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score; default: 0.3")
    parser.add_argument(
        "--exif-rotation",
        action="store_true",
        help="turn photos as their EXIF orientation says and viewers do; boxes are then those of "
        "the turned image",
    )


def run(options):
    """Predicts as the options say; returns 1 if an image could not be read."""
    if not 0 <= options.score <= 1:
        raise ValueError(f"--score must be in 0..1. Received: {options.score}")
    files, folder = find_images(options.images), Path(options.to)
    names = picture_names(files)
    _check_outputs(files, [folder / name for name in (*names, NUMBERS)])
    model = load_detector(options.run_folder, options.weights)
    _check_model(model)
    rows = []
    try:
        for file, name in zip(files, names, strict=True):
            rows += _predict(model, file, folder / name, options.score, options.exif_rotation)
    finally:  # after Ctrl-C, what was found so far
        atomic.write_json(folder / NUMBERS, rows)
    return int(len(rows) < len(files))


def _check_model(model):
    from libra_keras.models import FastRCNN

    if isinstance(model, FastRCNN):
        raise ValueError(
            "a FastRCNN proposes no boxes itself; in Python, `model.detect(image, proposals=...)` "
            "takes some"
        )


def _check_outputs(files, outputs):
    """Refuses to write over photographs, and over all that an earlier `predict` has not written."""
    originals = {file.resolve() for file in files}
    clashes = [str(output) for output in outputs if output.resolve() in originals]
    if clashes:
        raise ValueError(f"--to would overwrite {', '.join(clashes[:3])}; choose another folder")
    foreign = [str(output) for output in outputs if output.exists() and not _is_own(output)]
    if foreign:
        raise ValueError(
            f"--to would overwrite {', '.join(foreign[:3])}, which no earlier predict has written; "
            "choose another folder"
        )


def _is_own(output):
    from PIL import Image

    try:
        if output.name == NUMBERS:
            return all({"file", "picture"} <= row.keys() for row in json.loads(output.read_text()))
        with Image.open(output) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, AttributeError, TypeError):  # no picture, no list of dicts
        return False


def _predict(model, file, picture, score, turn):
    """Returns the file's row of the JSON in a list, which is empty if it cannot be read."""
    try:
        found = model.detect(file, score_threshold=score, exif_rotation=turn)
    except (OSError, ValueError) as error:  # the others are still wanted
        print(f"{file}: not read: {error}", file=sys.stderr)
        return []
    with atomic.replacing(picture) as unfinished:
        _draw(file, found, unfinished, turn)
    print(f"{file}: {_summary(found)}")
    return [{"file": str(file), "picture": picture.name, "detections": _listed(found)}]


def find_images(sources):
    """Returns the files of a list of files and folders (not searched deeper), in order.

    Raises:
        ValueError: if one does not exist, or a folder has no image.
    """
    files = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(f for f in source.iterdir() if f.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"there is no image in the folder {source}")
            files += inside
        elif source.is_file():
            files.append(source)
        else:
            raise ValueError(f"IMAGE must be a file or a folder. Received: {str(source)!r}")
    return files


def picture_names(files):
    """Names for the pictures of `files`, numbered where two would be equal.

    Example:

    >>> from pathlib import Path
    >>> from libra_keras.cli.predict import picture_names
    >>> picture_names([Path("a/cat.jpg"), Path("b/cat.png"), Path("dog.jpg")])
    ['cat.png', 'cat-2.png', 'dog.png']
    """
    names, taken = [], set()
    for file in files:
        stem, number = _shortened(file.stem), 2
        name = f"{stem}.png"
        while name in taken:
            name, number = f"{stem}-{number}.png", number + 1
        taken.add(name)
        names.append(name)
    return names


def _shortened(stem):
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    return stem


def _draw(file, found, to, turn):
    from PIL import Image, PngImagePlugin

    from libra_keras.data import read_image
    from libra_keras.visualization import draw_detections

    note = PngImagePlugin.PngInfo()
    note.add_text("Software", SOFTWARE)
    names = dict(zip(found["labels"].tolist(), found["names"], strict=True))
    boxes = found["boxes"], found["labels"], found["scores"], names
    to.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_detections(read_image(file, turn), *boxes)).save(to, "PNG", pnginfo=note)


def _listed(found):
    columns = found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist()
    return [
        {"box": box, "score": score, "label": label, "name": name}
        for box, score, label, name in zip(*columns, found["names"], strict=True)
    ]


def _summary(found):
    counts = {name: found["names"].count(name) for name in dict.fromkeys(found["names"])}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
