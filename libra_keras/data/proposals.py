"""Files of proposals, and data sets whose examples carry them along."""

import collections
import dataclasses
import itertools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from libra_keras.data.coco_entries import is_box, is_id, is_number
from libra_keras.data.examples import DetectionData
from libra_keras.files import atomic
from libra_keras.files.reading import SMALL, explained, memory, open_regular, read_json
from libra_keras.ranges import whole

NAMED = 5  # images that an error lists
PARTS = ("image_id", "boxes", "scores")
ARRAYS = {"image_ids": ("iu", 1), "counts": ("iu", 1), "boxes": ("iuf", 2), "scores": ("iuf", 1)}
DENSEST = 100  # times that numbers of real boxes are larger than compressed: at most 10


def write_proposals(path: str | Path, proposals: list[dict]) -> None:
    """Writes the proposals of many images to one file, completely or not at all.

    Args:
        path: str or path. `.npz` is compact: `"image_ids"` int64 `(n,)`, `"counts"` int64 `(n,)`,
            and, image after image, `"boxes"` float32 `(sum of counts, 4)` and `"scores"` float32.
            `.json` is a list of rows as in COCO's result files, without a category: `"image_id"`,
            `"bbox"` (x, y, width, height) and `"score"`; it cannot record images without any.
        proposals: list of one dict per image, as `evaluation.collect_proposals` returns it:
            `"image_id"`, `"boxes"` `(n, 4)` in pixels of the file, and `"scores"` `(n,)`.

    Raises:
        ValueError: if the suffix is not one of these, boxes and scores are not as described, or an
            image occurs twice.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.data import read_proposals, write_proposals
    >>> path = Path(tempfile.mkdtemp()) / "proposals.npz"
    >>> found = [{"image_id": 7, "boxes": [[0, 0, 8, 4], [1, 2, 3, 9]], "scores": [0.25, 0.5]}]
    >>> write_proposals(path, found)
    >>> read_proposals(path)[0]["boxes"].tolist()
    [[1.0, 2.0, 3.0, 9.0], [0.0, 0.0, 8.0, 4.0]]
    """
    suffix = file_format(path)
    proposals = _sound(proposals, str(path))
    if suffix == ".json":
        with atomic.replacing(path) as unfinished:
            unfinished.write_text(json.dumps(_coco_rows(proposals)))
        return
    arrays: dict[str, Any] = {
        "image_ids": np.array([image["image_id"] for image in proposals], "int64"),
        "counts": np.array([len(image["scores"]) for image in proposals], "int64"),
        "boxes": np.concatenate([np.zeros((0, 4), "float32"), *(p["boxes"] for p in proposals)]),
        "scores": np.concatenate([np.zeros(0, "float32"), *(p["scores"] for p in proposals)]),
    }
    with atomic.replacing(path) as unfinished:
        np.savez(unfinished, **arrays)


def read_proposals(path: str | Path) -> list[dict]:
    """Reads proposals from a file of `write_proposals` or of another program.

    Args:
        path: str or path, `.npz` or `.json` as `write_proposals` describes them. Rows of a JSON
            list may hold more than is used, such as a `"category_id"`.

    Returns:
        List of one dict per image: `"image_id"`, `"boxes"` float32 `(n, 4)` in pixels of the
        file and `"scores"` float32 `(n,)`, best first.

    Raises:
        ValueError: if the file has another format, a number is not finite, a box has negative
            sides, or an image occurs twice. The message names file and image.
        OSError: if there is no such file, or it is larger than the memory.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.data import read_proposals
    >>> path = Path(tempfile.mkdtemp()) / "selective_search.json"
    >>> _ = path.write_text('[{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    >>> read_proposals(path)[0]["boxes"].tolist()
    [[1.0, 2.0, 4.0, 6.0]]
    """
    path = Path(path)
    read = {".npz": _read_npz, ".json": _read_json}[file_format(path)]
    with explained(path):
        return _sound(read(path), str(path))


def with_proposals(
    data: DetectionData, proposals: str | Path | list[dict], most: int = 2000
) -> DetectionData:
    """Returns a data set whose examples, and thus all its batches, contain proposals.

    Boxes are clipped to their image, and those without an area are left out.

    Args:
        data: `DetectionData`.
        proposals: path of a file as `read_proposals` takes it, or a list as it returns it. They
            must be those of the images of `data`: all of them, and no others.
        most: int, maximum proposals per image, the best by score. Defaults to 2000.

    Returns:
        `DetectionData`, whose batches have `x["proposals"]`, see `training_batches`.

    Raises:
        ValueError: as in `read_proposals`; also if there are proposals for images that are not in
            `data`, or none for images that are, or if `most` is not positive.

    Example:

    >>> from libra_keras import data
    >>> scenes = data.shapes(2)
    >>> ids = [example.image_id for example in scenes.examples]
    >>> found = [{"image_id": i, "boxes": [[0, 0, 400, 99]], "scores": [0.5]} for i in ids]
    >>> scenes = data.with_proposals(scenes, found)
    >>> scenes.examples[0].proposals.tolist()
    [[0.0, 0.0, 320.0, 99.0]]

    Reference: the paper's ablations use proposals of a trained RPN; 2000 as in mmdetection.
    """
    most = whole(1).check("`most`", most)
    if isinstance(proposals, (str, Path)):
        source, images = str(proposals), read_proposals(proposals)
    else:
        source = "the list of proposals"
        images = _sound(proposals, source)
    found = {image["image_id"]: image["boxes"] for image in images}
    _check_images(data, found, source)
    examples = [
        dataclasses.replace(example, proposals=_inside(found[example.image_id], example)[:most])
        for example in data.examples
    ]
    return dataclasses.replace(data, examples=examples)


def file_format(path):
    """Returns `".npz"` or `".json"`, or raises a `ValueError`."""
    suffix = Path(path).suffix
    if suffix not in (".npz", ".json"):
        raise ValueError(f"A file of proposals must end in .npz or .json. Received: {path}")
    return suffix


def _sound(proposals, source):
    """The proposals of images as arrays, or a `ValueError` that names the source and the image."""
    proposals = [_checked(image, source) for image in proposals]
    counts = collections.Counter(image["image_id"] for image in proposals)
    twice = [image_id for image_id, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{source} must have each image once. Received: {_listed(twice)} twice")
    return proposals


def _checked(image, source):
    """An image's proposals as arrays, best first, or a `ValueError` that names the image."""
    if not isinstance(image, Mapping) or not image.keys() >= set(PARTS):
        raise ValueError(f"{source}: expected dicts of {', '.join(PARTS)}. Received: {image!r:.80}")
    image_id = image["image_id"]
    if isinstance(image_id, np.integer):
        image_id = int(image_id)
    if not is_id(image_id):
        raise ValueError(f"{source}: an image_id must be an integer. Received: {image_id!r:.80}")
    where = f"{source}, image {image_id}"
    boxes = _numbers(image["boxes"], f"{where}: boxes")
    scores = _numbers(image["scores"], f"{where}: scores")
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"{where}: expected boxes (n, 4) and scores (n,). "
            f"Received: {boxes.shape} and {scores.shape}"
        )
    with np.errstate(over="ignore"):
        boxes32, scores32 = boxes.astype("float32"), scores.astype("float32")
    good = np.isfinite(boxes32).all(-1) & np.isfinite(scores32)
    good &= (boxes[:, 2:] >= boxes[:, :2]).all(-1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{where}, box {row}: proposals must be finite, with x1 <= x2 and y1 <= y2. "
            f"Received: {boxes[row].tolist()}, score {scores[row]}"
        )
    order = np.argsort(-scores32, kind="stable")
    return {"image_id": image_id, "boxes": boxes32[order], "scores": scores32[order]}


def _numbers(values, where):
    """An array of numbers; what is none, text that looks like one included, is an error."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.size and array.dtype.kind not in "iuf":
        shown = values.tolist() if isinstance(values, np.ndarray) else values
        raise ValueError(f"{where} must be numbers in rows of one length. Received: {shown!r:.80}")
    return array


def _read_npz(path):
    with open_regular(path, memory()) as stream, zipfile.ZipFile(stream) as archive:
        members = _members(archive, max(SMALL, DENSEST * path.stat().st_size))
        ids, counts, boxes, scores = (_array(archive, *pair) for pair in members.items())
    counts = counts.tolist()
    if min(counts, default=0) < 0:
        raise ValueError(f"its counts must not be negative. Received: {min(counts)}")
    if len(ids) != len(counts) or sum(counts) != len(boxes) or len(boxes) != len(scores):
        raise ValueError(
            f"its arrays do not fit: {len(ids)} image_ids, {len(counts)} counts of "
            f"{sum(counts)} boxes in total, {len(boxes)} boxes, {len(scores)} scores"
        )
    ends = itertools.accumulate(counts)
    return [
        {"image_id": i, "boxes": boxes[end - count : end], "scores": scores[end - count : end]}
        for i, count, end in zip(ids.tolist(), counts, ends, strict=True)
    ]


def _members(archive, most):
    """The files of the arrays in an archive, which may not unfold to more than so many bytes."""
    there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if missing := [name for name in ARRAYS if name not in there]:
        raise ValueError(f"it has no array {', '.join(missing)}")
    size = sum(there[name].file_size for name in ARRAYS)
    if size > most:
        raise ValueError(f"its arrays unfold to {size:,} bytes, more than such boxes do")
    return {name: there[name] for name in ARRAYS}


def _array(archive, name, member):
    """Reads an array without what it may hold of Python's objects."""
    kinds, ndim = ARRAYS[name]
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        is_whole = not file.read(1)  # and its checksum is right
    has_form = array.ndim == ndim and array.dtype.kind in kinds
    if not is_whole or not (has_form or array.shape == (0,)):  # what NumPy makes of []
        expected = "integers" if kinds == "iu" else "numbers"
        raise ValueError(
            f"its {name} must be {ndim}-dimensional {expected}. "
            f"Received: {array.dtype} of shape {array.shape}{'' if is_whole else ', and more'}"
        )
    return array


def _read_json(path):
    rows = read_json(path, memory())
    if not isinstance(rows, list):
        raise ValueError(f"expected a list of rows. Received: {rows!r:.80}")
    images = {}
    for position, row in enumerate(rows):
        problem = _row_problem(row)
        if problem:
            raise ValueError(f"row {position}: {problem}")
        x, y, width, height = map(float, row["bbox"])
        image = images.setdefault(row["image_id"], ([], []))
        image[0].append((x, y, x + width, y + height))
        image[1].append(float(row["score"]))
    return [{"image_id": i, "boxes": b, "scores": s} for i, (b, s) in images.items()]


def _row_problem(row):
    """What is wrong with a row of COCO's result files, as it stands there, or `None`."""
    if not isinstance(row, dict):
        return f"it is {row!r:.80}, not an object"
    for key, is_good, expected in (
        ("image_id", is_id, "an integer"),
        ("bbox", is_box, "four finite numbers"),
        ("score", is_number, "a finite number"),
    ):
        of_image = "" if key == "image_id" else f" of image {row['image_id']}"
        if key not in row:
            return f'it{of_image} has no "{key}"'
        if not is_good(row[key]):
            return f"its {key}{of_image} must be {expected}. Received: {row[key]!r:.80}"
    if min(row["bbox"][2:]) < 0:
        return f"its bbox of image {row['image_id']} has a negative side: {row['bbox']!r}"
    return None


def _coco_rows(proposals):
    return [
        {"image_id": image["image_id"], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image in proposals
        for (x1, y1, x2, y2), score in zip(
            image["boxes"].tolist(), image["scores"].tolist(), strict=True
        )
    ]


def _check_images(data, found, source):
    wanted = {example.image_id for example in data.examples}
    known = wanted | {image["id"] for image in data.annotations["images"]}
    wrong = {
        "proposals of unknown images": [i for i in found if i not in known],
        "no proposals for the images": [i for i in sorted(wanted) if i not in found],
    }
    wrong = [f"{what} {_listed(ids)}" for what, ids in wrong.items() if ids]
    if wrong:
        raise ValueError(f"{source} does not belong to {data.name}: {'; '.join(wrong)}")


def _listed(ids):
    more = f", ... ({len(ids)} in total)" if len(ids) > NAMED else ""
    return ", ".join(str(i) for i in ids[:NAMED]) + more


def _inside(boxes, example):
    boxes = np.clip(boxes, 0, np.array([example.width, example.height] * 2, "float32"))
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(-1)]
