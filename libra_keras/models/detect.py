"""From what a user has to boxes in the user's own pixels."""

import os

import numpy as np

from libra_keras.data.images import read_image, scale_boxes


def detect(model, images, score_threshold=0.05, batch_size=1, exif_rotation=False, proposals=None):
    """Runs a detector on images of any kind and size, as `Detector.detect` says."""
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"`score_threshold` must be in 0..1. Received: {score_threshold}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
    single = not isinstance(images, (list, tuple))
    sources = [images] if single else list(images)
    given = None if proposals is None else _per_image(proposals, len(sources), single)
    results = [None] * len(sources)
    for start in range(0, len(sources), batch_size):  # images are read when their batch is run
        positions = range(start, min(start + batch_size, len(sources)))
        arrays = [_read(sources[i], None if single else i, exif_rotation) for i in positions]
        boxes = None if given is None else [given[i] for i in positions]
        for position, found in zip(positions, _detect_batch(model, arrays, boxes), strict=True):
            results[position] = _named(found, score_threshold, model.class_names)
    return results[0] if single else results


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
        return read_image(source, exif_rotation)
    except Exception as error:  # damaged files make decoders raise nearly anything
        name = "the image" if position is None else f"images[{position}]"
        is_path = isinstance(source, (str, os.PathLike))
        what = f"{name}, {os.fspath(source)}" if is_path else f"{name}, a {type(source).__name__}"
        message = f"{what}, cannot be read: {type(error).__name__}: {error}"
        raise ValueError(message) from error


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


def _named(found, score_threshold, class_names):
    kept = found["scores"] >= score_threshold
    found = {key: value[kept] for key, value in found.items()}
    names = [class_names[i] if class_names else str(i) for i in found["labels"]]
    return {**found, "names": names}
