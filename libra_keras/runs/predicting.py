"""Objects found in files: pictures with boxes, and a JSON of all detections."""

import collections
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
from PIL import Image, PngImagePlugin

from libra_keras.data import read_image
from libra_keras.data.decoding import opened
from libra_keras.files import atomic
from libra_keras.files.image_files import images_in, others_in
from libra_keras.files.reading import explained, read_json
from libra_keras.files.replacing import check_replaceable_files, check_writable
from libra_keras.models import FastRCNN, RegionProposalNetwork
from libra_keras.visualization import draw_detections
from libra_keras.visualization.panels import BEST

NUMBERS = "detections.json"
SOFTWARE = "libra-keras predict"  # recorded in pictures, so that a later one may replace them
SAVED_EVERY = 60.0  # seconds
LONGEST = 200  # bytes of a name; most disks have 255, and an unfinished file has a longer name
SUFFIXES = 5  # told of the files that a folder has beside its images


def predict(
    model: keras.Model,
    files: list[Path],
    folder: Path,
    score: float,
    exif_rotation: bool,
    tiling: Mapping[str, Any],
) -> int:
    """Draws the detections of each file that `check` has accepted, writes the numbers of all, and
    returns how many files could be read; the others are named on stderr. `tiling` holds the
    arguments of `detect` for tiles."""
    if isinstance(model, FastRCNN):
        raise ValueError(
            "a FastRCNN proposes no boxes itself; in Python, use `model.detect(image, "
            "proposals=...)`"
        )
    if tiling and isinstance(model, RegionProposalNetwork):
        raise ValueError("a RegionProposalNetwork proposes on whole images; omit --tile")
    rows, due = [], time.monotonic() + SAVED_EVERY
    try:
        for file, name in zip(files, picture_names(files), strict=True):
            rows += _predict(model, file, folder / name, score, exif_rotation, tiling)
            if time.monotonic() > due:  # a process that never ends by itself gets killed
                atomic.write_json(folder / NUMBERS, rows)
                due = time.monotonic() + SAVED_EVERY
    finally:  # after Ctrl-C, what was found so far
        if rows:  # else those of an earlier command stay
            atomic.write_json(folder / NUMBERS, rows)
    return len(rows)


def check(files: list[Path], folder: Path) -> None:
    """Refuses to overwrite photos, and anything that no earlier `predict` has written, and a
    folder in which nothing can be written."""
    check_writable(folder, "--to")
    outputs = [folder / name for name in (*picture_names(files), NUMBERS)]
    originals = {file.resolve() for file in files}
    clashes = [str(output) for output in outputs if output.resolve() in originals]
    if clashes:
        raise ValueError(f"--to would overwrite {', '.join(clashes[:3])}; choose another folder")
    check_replaceable_files(outputs, "output of an earlier predict", _is_own, overwrite=True)


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Returns the files of a list of files and folders (not searched deeper), in order. What a
    folder has beside images is told on stderr."""
    files = []
    for source in map(Path, sources):
        if source.is_dir():
            _tell_others(source)
            files += _photos(source)
        elif source.is_file():
            files.append(source)
        else:
            raise ValueError(f"IMAGE must be a file or a folder. Received: {str(source)!r}")
    return files


def _photos(folder):
    """A folder's images, but for the pictures that an earlier `predict` has drawn there."""
    images = images_in(folder)
    if not (folder / NUMBERS).is_file():
        return images
    drawn = {file for file in images if file.suffix == ".png" and _is_own(file)}
    if drawn:
        said = f"{len(drawn)} picture(s) in {folder}, which an earlier predict has drawn"
        print(f"not read: {said}", file=sys.stderr)
    return [file for file in images if file not in drawn]


def _tell_others(folder):
    others = others_in(folder)
    if not others:
        return
    kinds = [f"{count} {suffix or 'without'}" for suffix, count in others.most_common(SUFFIXES)]
    kinds += ["..."] if len(others) > SUFFIXES else []
    said = f"{others.total()} file(s) in {folder}, because of their suffixes: {', '.join(kinds)}"
    print(f"not read: {said}", file=sys.stderr)


def picture_names(files: Iterable[Path]) -> list[str]:
    """Returns names for the pictures of `files`, numbered where two would be equal."""
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


def _is_own(output):
    try:
        if output.name == NUMBERS:
            rows = read_json(output, most=None)  # of as many images as there are
            return all({"file", "picture"} <= row.keys() for row in rows)
        with explained(output), opened(output) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, AttributeError, TypeError):  # no picture, no list of dicts
        return False


def _predict(model, file, picture, score, turn, tiling) -> list[dict[str, Any]]:
    """The file's row of the JSON in a list, or an empty list if it cannot be read."""
    try:
        pixels = read_image(file, turn)  # once: the file may change
    except OSError as error:  # the others are still wanted
        print(f"not read: {error}", file=sys.stderr)
        return []
    found = model.detect(pixels, score_threshold=0.0, **tiling)
    with atomic.replacing(picture) as unfinished:
        _draw(pixels, found, unfinished, score)
    rows = [row for row in _listed(found) if row["score"] >= score]
    print(f"{file}: {_summary(rows)}")
    return [{"file": str(file), "picture": picture.name, "detections": rows}]


def _draw(pixels, found, to, score):
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", SOFTWARE)
    names = dict(zip(found["labels"].tolist(), found["names"], strict=True))
    boxes = found["boxes"], found["labels"], found["scores"], names, score
    to.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_detections(pixels, *boxes, best_below=BEST)
    Image.fromarray(drawn).save(to, "PNG", pnginfo=note)


def _listed(found):
    columns = found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist()
    return [
        {"box": box, "score": score, "label": label, "name": name}
        for box, score, label, name in zip(*columns, found["names"], strict=True)
    ]


def _summary(rows):
    counts = collections.Counter(row["name"] for row in rows)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
