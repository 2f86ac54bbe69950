"""Files of proposals, and data sets whose examples carry them along."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np

from libra_keras import atomic

NAMED = 5  # images that an error lists


def write_proposals(path, proposals):
    """Writes the proposals of many images to one file, whole or not at all.

    Args:
        path: str or path. `.npz` is compact: `"image_ids"` int64 `(n,)`, `"counts"` int64 `(n,)`,
            and, image after image, `"boxes"` float32 `(sum of counts, 4)` and `"scores"` float32.
            `.json` is a list of rows as in COCO's result files, without a category: `"image_id"`,
            `"bbox"` (x, y, width, height) and `"score"`; it cannot say that an image has none.
        proposals: list of one dict per image, as `evaluation.collect_proposals` returns it:
            `"image_id"`, `"boxes"` `(n, 4)` in pixels of the file, and `"scores"` `(n,)`.

    Raises:
        ValueError: if the suffix is another, or boxes and scores are not as described.

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
    proposals = [_checked(image, str(path)) for image in proposals]
    if suffix == ".json":
        with atomic.replacing(path) as unfinished:
            unfinished.write_text(json.dumps(_coco_rows(proposals)))
        return
    arrays = {
        "image_ids": np.array([image["image_id"] for image in proposals], "int64"),
        "counts": np.array([len(image["scores"]) for image in proposals], "int64"),
        "boxes": np.concatenate([np.zeros((0, 4), "float32"), *(p["boxes"] for p in proposals)]),
        "scores": np.concatenate([np.zeros(0, "float32"), *(p["scores"] for p in proposals)]),
    }
    with atomic.replacing(path) as unfinished:
        np.savez(unfinished, **arrays)


def read_proposals(path):
    """Reads proposals from a file of `write_proposals` or of another program.

    Args:
        path: str or path, `.npz` or `.json` as `write_proposals` describes them. Rows of a JSON
            list may hold more than is used, such as a `"category_id"`.

    Returns:
        List of one dict per image: `"image_id"`, `"boxes"` float32 `(n, 4)` in pixels of the
        file and `"scores"` float32 `(n,)`, best first.

    Raises:
        ValueError: if the file is no such file, a number is not finite, a box has negative
            sides, or an image comes twice. The message names file and image.

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
    try:
        proposals = read(path)
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no file of proposals: {type(error).__name__}: {error}"
        ) from error
    proposals = [_checked(image, str(path)) for image in proposals]
    seen = set()
    twice = [i["image_id"] for i in proposals if i["image_id"] in seen or seen.add(i["image_id"])]
    if twice:
        raise ValueError(f"{path} must have each image once. Received: {_listed(twice)} twice")
    return proposals


def with_proposals(data, proposals, most=2000):
    """Returns a data set whose examples, and so all batches of it, hold proposals.

    Boxes are clipped to their image, and those without an area are left out.

    Args:
        data: `DetectionData`.
        proposals: path of a file as `read_proposals` takes it, or a list as it returns it. They
            must be those of the images of `data`: all of them, and no others.
        most: int, proposals of an image that are used, the best by score. Defaults to 2000.

    Returns:
        `DetectionData`, whose batches have `x["proposals"]`, see `training_batches`.

    Raises:
        ValueError: as `read_proposals` does; also if proposals are of images that `data` does not
            know, or images of `data` have none in the file, or `most` is not positive.

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
    if most < 1:
        raise ValueError(f"`most` must be at least 1. Received: most={most}")
    if isinstance(proposals, (str, Path)):
        source, proposals = str(proposals), read_proposals(proposals)
    else:
        source = "the proposals"
        proposals = [_checked(image, source) for image in proposals]
    found = {image["image_id"]: image["boxes"] for image in proposals}
    _check_images(data, found, source)
    examples = [
        dataclasses.replace(example, proposals=_inside(found[example.image_id], example)[:most])
        for example in data.examples
    ]
    return dataclasses.replace(data, examples=examples)


def file_format(path):
    """Returns `".npz"` or `".json"`.

    Raises:
        ValueError: if the name ends in neither.

    Example:

    >>> from libra_keras.data.proposals import file_format
    >>> file_format("runs/proposals.npz")
    '.npz'
    """
    suffix = Path(path).suffix
    if suffix not in (".npz", ".json"):
        raise ValueError(f"A file of proposals must end in .npz or .json. Received: {path}")
    return suffix


def _checked(image, source):
    """An image's proposals as arrays, best first, or a `ValueError` that names the image."""
    image_id = int(image["image_id"])
    boxes = np.asarray(image["boxes"], "float32")
    scores = np.asarray(image["scores"], "float32")
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    where = f"{source}, image {image_id}"
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"{where}: expected boxes (n, 4) and scores (n,). "
            f"Received: {boxes.shape} and {scores.shape}"
        )
    good = np.isfinite(boxes).all(-1) & np.isfinite(scores)
    good &= (boxes[:, 2:] >= boxes[:, :2]).all(-1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{where}: proposals must be finite, with x1 <= x2 and y1 <= y2. "
            f"Received: box {boxes[row].tolist()}, score {scores[row]} in row {row}"
        )
    order = np.argsort(-scores, kind="stable")
    return {"image_id": image_id, "boxes": boxes[order], "scores": scores[order]}


def _read_npz(path):
    with np.load(path) as file:
        ids, counts, boxes, scores = (
            file[name] for name in ("image_ids", "counts", "boxes", "scores")
        )
    if len(ids) != len(counts) or counts.sum() != len(boxes) or len(boxes) != len(scores):
        raise ValueError(
            f"its arrays do not fit: {len(ids)} image_ids, {len(counts)} counts of "
            f"{counts.sum()} boxes in all, {len(boxes)} boxes, {len(scores)} scores"
        )
    ends = np.cumsum(counts)
    return [
        {"image_id": i, "boxes": boxes[end - count : end], "scores": scores[end - count : end]}
        for i, count, end in zip(ids, counts, ends, strict=True)
    ]


def _read_json(path):
    rows = json.loads(path.read_text())
    if not isinstance(rows, list):
        raise ValueError(f"expected a list of rows, not {type(rows).__name__}")
    images = {}
    for row in rows:
        x, y, width, height = row["bbox"]
        image = images.setdefault(row["image_id"], ([], []))
        image[0].append((x, y, x + width, y + height))
        image[1].append(row["score"])
    return [{"image_id": i, "boxes": b, "scores": s} for i, (b, s) in images.items()]


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
    more = f", ... ({len(ids)} in all)" if len(ids) > NAMED else ""
    return ", ".join(str(i) for i in ids[:NAMED]) + more


def _inside(boxes, example):
    boxes = np.clip(boxes, 0, np.array([example.width, example.height] * 2, "float32"))
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(-1)]
