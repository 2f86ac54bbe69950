"""From what a user has to boxes in the user's own pixels."""

import os

import numpy as np

from libra_keras.data.images import read_image


def detect(model, images, score_threshold=0.05, batch_size=1, exif_rotation=False):
    """Runs a detector on images of any kind and size.

    Args:
        model: detector with `predict_on_batch`, `input_policy` and `class_names`.
        images: a path, bytes, Pillow image or array, or a list of them.
        score_threshold: float in 0..1; lower scores are left out.
        batch_size: int, images of equal orientation that are run together.
        exif_rotation: bool, whether images are turned as their EXIF orientation says, as viewers
            show them. Boxes are then in the turned image; otherwise in the pixels as stored, to
            which the annotations of data sets refer.

    Returns:
        Dict with the keys `"boxes"` (float32 `(n, 4)`, pixels of the original image), `"scores"`,
        `"labels"` and `"names"`, best first; a list of dicts for a list of images.

    Raises:
        ValueError: if an image cannot be read. The message names it, by its path or its position
            in the list, and what is wrong.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> from libra_keras.models.detect import detect
    >>> model = libra_faster_rcnn_small(num_classes=6)
    >>> found = detect(model, [np.zeros((30, 50, 3), "uint8")], score_threshold=0.99)
    >>> found[0]["boxes"].shape
    (0, 4)
    """
    single = not isinstance(images, (list, tuple))
    sources = [images] if single else list(images)
    results = [None] * len(sources)
    for positions in _batches(sources, batch_size):
        arrays = [_read(sources[i], None if single else i, exif_rotation) for i in positions]
        for position, found in zip(positions, _detect_batch(model, arrays), strict=True):
            results[position] = _named(found, score_threshold, model.class_names)
    return results[0] if single else results


def _batches(sources, batch_size):
    """Runs of at most `batch_size` positions; images are read when their batch is run."""
    return [
        range(start, min(start + batch_size, len(sources)))
        for start in range(0, len(sources), batch_size)
    ]


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


def _detect_batch(model, arrays):
    results = [None] * len(arrays)
    shapes = [model.input_policy.bucket_size(*array.shape[:2]) for array in arrays]
    for shape in sorted(set(shapes)):  # landscape and portrait images are padded differently
        members = [i for i, own in enumerate(shapes) if own == shape]
        prepared = [model.input_policy.prepare(arrays[i]) for i in members]
        batch = {
            "images": np.stack([image for image, _ in prepared]),
            "image_sizes": np.array([size for _, size in prepared], "int32"),
        }
        found = {key: np.asarray(value) for key, value in model.predict_on_batch(batch).items()}
        for row, member in enumerate(members):
            results[member] = _unscaled(found, row, prepared[row][1], arrays[member].shape[:2])
    return results


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
