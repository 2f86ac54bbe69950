"""From what a user has to boxes in the user's own pixels."""

import functools
import itertools

import numpy as np

from libra_keras.data.images import read_image, scale_boxes
from libra_keras.files import downloads
from libra_keras.files.image_files import is_address, local, several
from libra_keras.files.reading import reason
from libra_keras.models.tiles import checked, detect_tiles, warn_of_large_objects
from libra_keras.ranges import SHARE, whole


def detect(
    model,
    images,
    score_threshold=0.05,
    batch_size=1,
    exif_rotation=False,
    tile=None,
    overlap=0.2,
    proposals=None,
):
    """Runs a detector on images of any kind and size, as `Detector.detect` says."""
    score_threshold = SHARE.check("`score_threshold`", score_threshold)
    batch_size = whole(1).check("`batch_size`", batch_size)
    tiling = checked(tile, overlap)
    if tiling is not None:
        warn_of_large_objects(tiling, getattr(model, "largest_object", None))
    find = functools.partial(_found, model, batch_size, exif_rotation, tiling, score_threshold)
    if hasattr(images, "__next__") and not hasattr(images, "read"):
        if proposals is not None:
            raise ValueError("`proposals` require a list of images. Received: an iterator")
        return find(zip(images, itertools.repeat(None)), False)
    files = several(images)
    if files is not None:
        images = files
    elif getattr(images, "ndim", None) == 4:  # a batch
        images = list(images)
    single = not isinstance(images, (list, tuple))
    sources = [images] if single else images
    given = [None] * len(sources)
    if proposals is not None:
        given = _per_image(proposals, len(sources), single)
    results = list(find(zip(sources, given, strict=True), single))
    if files is not None:
        return [{"file": str(file), **own} for file, own in zip(files, results, strict=True)]
    return results[0] if single else results


def _found(model, batch_size, exif_rotation, tiling, score_threshold, pairs, single):
    """Yields what is found in the images of pairs of an image and its proposals; images are read
    when their batch is run.
    """
    numbers = itertools.count()

    def run(arrays, boxes=None):  # what scores less must not decide which boxes of tiles are left
        return [_at_least(found, score_threshold) for found in _detect_batch(model, arrays, boxes)]

    while pairs_of_batch := list(itertools.islice(pairs, 1 if tiling else batch_size)):
        sources, boxes = zip(*pairs_of_batch, strict=True)
        arrays = [_read(own, None if single else next(numbers), exif_rotation) for own in sources]
        if tiling is None:
            results = run(arrays, None if boxes[0] is None else boxes)
        else:
            results = [detect_tiles(model, run, arrays[0], tiling, batch_size)]
        for found in results:
            yield _named(found, model.class_names)


def _per_image(proposals, count, single):
    """The proposals as a list of arrays `(n, 4)`, one an image."""
    arrays = [np.asarray(boxes, "float32") for boxes in ([proposals] if single else proposals)]
    if len(arrays) != count:
        raise ValueError(
            "`proposals` must be a list of arrays, one for each image. "
            f"Received: {len(arrays)} arrays for {count} images"
        )
    for i, boxes in enumerate(arrays):
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise ValueError(
                "`proposals` must have the shape (n, 4) for each image. "
                f"Received: shape {boxes.shape} for image {i}"
            )
    return [boxes.reshape(-1, 4) for boxes in arrays]


def _read(source, position, exif_rotation):
    """Reads an image, or raises a `ValueError` that says which one cannot be read."""
    try:
        return read_image(_fetched(source), exif_rotation)
    except Exception as error:  # arrays of other libraries raise nearly anything
        name, why = "" if position is None else f"images[{position}]: ", reason(error)
        if is_address(source) and source not in why:
            name += f"{source}: "
        raise ValueError(f"{name}{why}") from error


def _fetched(source):
    """What an address stands for: bytes, or a path; anything else as it is."""
    return (local(source) or downloads.read(source)) if is_address(source) else source


def _detect_batch(model, arrays, proposals=None):
    results = [None] * len(arrays)
    shapes = [model.input_policy.bucket_size(*array.shape[:2]) for array in arrays]
    for shape in sorted(set(shapes)):  # landscape and portrait images are padded differently
        members = [i for i, own in enumerate(shapes) if own == shape]
        prepared = [model.input_policy.prepare(arrays[i]) for i in members]
        sizes = [size for _, size in prepared]
        batch = {
            "images": np.stack([image for image, _ in prepared]),
            "image_sizes": np.array(sizes, "int32"),
        }
        if proposals is not None:
            originals = [arrays[i].shape[:2] for i in members]
            batch["proposals"] = _padded([proposals[i] for i in members], originals, sizes)
        found = _as_detections(model.predict_on_batch(batch))
        for row, member in enumerate(members):
            results[member] = _unscaled(found, row, sizes[row], arrays[member].shape[:2])
    return results


def _as_detections(found):
    """What a model predicts, as arrays; proposals become detections of one class."""
    found = {key: np.asarray(value) for key, value in found.items()}
    if "mask" in found:
        found["labels"] = np.zeros(found["mask"].shape, "int32")
        found["num_detections"] = found["mask"].sum(axis=1)
    return found


def _padded(proposals, originals, sizes):
    """Boxes `(B, P, 4)` in pixels of the resized images; P a power of 2, so few are compiled."""
    most = max([16, *(len(boxes) for boxes in proposals)])
    padded = np.zeros((len(proposals), 2 ** int(np.ceil(np.log2(most))), 4), "float32")
    for row, (boxes, *change) in enumerate(zip(proposals, originals, sizes, strict=True)):
        padded[row, : len(boxes)] = scale_boxes(boxes, *change)
    return padded


def _unscaled(found, row, size, original_size):
    count = int(found["num_detections"][row])
    scale = np.array([original_size[1] / size[1], original_size[0] / size[0]] * 2, "float32")
    return {
        "boxes": found["boxes"][row, :count] * scale,
        "scores": found["scores"][row, :count],
        "labels": found["labels"][row, :count],
    }


def _at_least(found, score_threshold):
    kept = found["scores"] >= score_threshold
    return {key: value[kept] for key, value in found.items()}


def _named(found, class_names):
    names = [class_names[i] if class_names else str(i) for i in found["labels"]]
    return {**found, "names": names}
