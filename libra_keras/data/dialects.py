"""Translation from and to the formats of images and boxes in KerasCV, Keras and KerasHub.

A *sample* is `{"images", "bounding_boxes": {"boxes", "classes" or "labels"}}`: KerasCV uses
"classes", Keras' own layers and KerasHub use "labels". Boxes come in one of `FORMATS`, ragged or
padded. All functions take a batch or a single image, work eagerly and inside `tf.data`, and leave
the caller's dicts as they are: Keras' layers, called eagerly, write into the dict they are given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from libra_keras.data.box_formats import clipped, from_xyxy, operations, to_xyxy
from libra_keras.typing import Tensor

LABEL_KEYS = ("labels", "classes")


def to_targets(
    bounding_boxes: dict[str, Tensor],
    bounding_box_format: str,
    image_size: Tensor,
    max_boxes: int | None = None,
    min_side: float = 1.0,
) -> dict[str, Tensor]:
    """Translates a dict of boxes to our targets: `y` of `fit`.

    Padding is recognised by its label -1 alone: augmentations move the boxes of padding rows too,
    to `[97, 0, 97, 0]` or anywhere. Boxes are clipped to the image; what is then smaller than
    `min_side` (an object that was cropped away) becomes padding.

    Args:
        bounding_boxes: dict of `"boxes"` `(B, n, 4)` and `"labels"` or `"classes"` `(B, n)`, both
            dense with label -1 in padding rows, or both ragged; or of one image, without B.
        bounding_box_format: str, one of `FORMATS`.
        image_size: `(height, width)` of the images, or a tensor `(B, 2)`.
        max_boxes: int M, or `None` for as many rows as there are. With M, padding comes after the
            boxes, and boxes beyond M are left out.
        min_side: float, the least width and height of a box, in pixels.

    Returns:
        Dict of `"boxes"` float32 `(B, M, 4)`, pixels, 0 in padding rows, and `"labels"` int32
        `(B, M)`, -1 in padding rows.

    Raises:
        ValueError: if a key is missing or the format unknown.

    Example: the second row is padding, whatever its box.

    >>> from keras import ops
    >>> from libra_keras.data import dialects
    >>> theirs = {"boxes": [[[10, 20, 30, 60], [97, 0, 97, 9]]], "classes": [[2, -1]]}
    >>> y = dialects.to_targets(theirs, "yxyx", image_size=(100, 50))
    >>> ops.convert_to_numpy(y["boxes"]).tolist(), ops.convert_to_numpy(y["labels"]).tolist()
    ([[[20.0, 10.0, 50.0, 30.0], [0.0, 0.0, 0.0, 0.0]]], [[2, -1]])
    """
    boxes = _dense(_value(bounding_boxes, ("boxes",)), [None, None, 4])
    labels = _dense(_value(bounding_boxes, LABEL_KEYS), [None, None])
    xp = operations(boxes, labels, image_size)
    labels = xp.cast(xp.convert_to_tensor(labels), "int32")
    boxes = clipped(to_xyxy(boxes, bounding_box_format, image_size), image_size)
    large = (boxes[..., 2] - boxes[..., 0] >= min_side) & (
        boxes[..., 3] - boxes[..., 1] >= min_side
    )
    real = (labels >= 0) & large
    boxes = xp.where(real[..., None], boxes, xp.zeros_like(boxes))
    labels = xp.where(real, labels, -xp.ones_like(labels))
    if max_boxes is None:
        return {"boxes": boxes, "labels": labels}
    boxes, labels = _real_first(xp, real, boxes, labels)
    return {
        "boxes": _fixed_rows(xp, boxes, max_boxes, axis=-2, value=0.0),
        "labels": _fixed_rows(xp, labels, max_boxes, axis=-1, value=-1),
    }


def from_sample(
    sample: dict[str, Any],
    bounding_box_format: str,
    max_boxes: int | None = None,
    min_side: float = 1.0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translates a sample to what our `fit` takes.

    The entire image counts as content: layers that resize and pad put the content in the middle.

    Args:
        sample: dict of `"images"` `(B, H, W, 3)`, RGB in 0..255, and `"bounding_boxes"`, see
            `to_targets`; or of one image. `"image_ids"` and `"original_sizes"` are passed on,
            other keys are left out.
        bounding_box_format, max_boxes, min_side: as in `to_targets`. In `tf.data` give
            `max_boxes`, so that all batches have one shape.

    Returns:
        Tuple `(x, y)` as `data.training_batches` has it: `x` with `"images"` and
        `"image_sizes"` int32 `(B, 2)`, `y` with `"boxes"` and `"labels"`.

    Raises:
        ValueError: if a key is missing, the format is unknown, or the images are ragged.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data import dialects
    >>> boxes = {"boxes": np.zeros((2, 3, 4)), "labels": -np.ones((2, 3))}
    >>> sample = {"images": np.zeros((2, 64, 96, 3), "uint8"), "bounding_boxes": boxes}
    >>> x, y = dialects.from_sample(sample, "xywh", max_boxes=5)
    >>> tuple(x["images"].shape), tuple(y["boxes"].shape), tuple(y["labels"].shape)
    ((2, 64, 96, 3), (2, 5, 4), (2, 5))
    """
    missing = [key for key in ("images", "bounding_boxes") if key not in sample]
    if missing:
        raise ValueError(
            "A sample must have the keys 'images' and 'bounding_boxes'. "
            f"Received the keys: {sorted(sample)}"
        )
    if hasattr(sample["images"], "to_tensor"):
        raise ValueError(
            "Images must be dense. Ragged ones require a layer that first resizes them to one "
            "size, such as Resizing or JitteredResize."
        )
    xp = operations(sample["images"])
    images = xp.convert_to_tensor(sample["images"])
    shape = xp.shape(images)
    size = xp.stack([xp.cast(shape[-3], "int32"), xp.cast(shape[-2], "int32")])
    if len(images.shape) == 4:
        size = xp.broadcast_to(size, (shape[0], 2))
    kept: dict[str, Tensor] = {
        key: sample[key] for key in ("image_ids", "original_sizes") if key in sample
    }
    y = to_targets(sample["bounding_boxes"], bounding_box_format, size, max_boxes, min_side)
    return {"images": images, "image_sizes": size, **kept}, y


def from_dataset(
    dataset: Any, bounding_box_format: str, max_boxes: int | None = None, min_side: float = 1.0
) -> Any:
    """Translates a `tf.data.Dataset` as KerasCV or KerasHub is trained on to what our `fit` takes.

    `fit` takes such data sets as they are where boxes are `"xyxy"`.

    Args:
        dataset: `tf.data.Dataset`, batched or not, of samples `{"images", "bounding_boxes"}`, or
            of pairs `(images, {"boxes", "labels"})`, or `"classes"`; see `from_sample`.
        bounding_box_format, max_boxes, min_side: as in `to_targets`.

    Returns:
        `tf.data.Dataset` of tuples `(x, y)`, see `from_sample`.

    Raises:
        ValueError: if a key is missing, the format is unknown, or the images are ragged.

    Example:

    ```python
    model.fit(data.dialects.from_dataset(dataset, bounding_box_format="xywh"))
    ```
    """

    def translated(sample, boxes=None):
        sample = sample if isinstance(sample, dict) else {"images": sample}
        sample = sample if boxes is None else {**sample, "bounding_boxes": boxes}
        return from_sample(sample, bounding_box_format, max_boxes, min_side)

    return dataset.map(translated)


def to_sample(
    x: dict[str, Tensor],
    y: dict[str, Tensor],
    bounding_box_format: str,
    label_key: str = "labels",
) -> dict[str, Any]:
    """Translates a batch of ours to a sample, for augmentation layers and detectors of others.

    Args:
        x: dict of `"images"` `(B, H, W, 3)`; other keys are passed on.
        y: dict of `"boxes"` `(B, M, 4)` and `"labels"` `(B, M)`, -1 in padding rows.
        bounding_box_format: str, one of `FORMATS`, of the result.
        label_key: `"labels"` for Keras and KerasHub, `"classes"` for KerasCV.

    Returns:
        Dict of the keys of `x` and `"bounding_boxes"`: float32 `"boxes"` and `label_key`, both -1
        in padding rows.

    Raises:
        ValueError: if the format or the key is unknown.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from libra_keras.data import dialects
    >>> y = {"boxes": [[[16.0, 8.0, 48.0, 32.0]]], "labels": [[3]]}
    >>> x = {"images": np.zeros((1, 64, 64, 3), "uint8")}
    >>> theirs = dialects.to_sample(x, y, "rel_xyxy", "classes")["bounding_boxes"]
    >>> {key: ops.convert_to_numpy(value).tolist() for key, value in theirs.items()}
    {'boxes': [[[0.25, 0.125, 0.75, 0.5]]], 'classes': [[3.0]]}
    """
    _check_key(label_key)
    xp = operations(x["images"], y["boxes"])
    x = {key: xp.convert_to_tensor(value) for key, value in x.items()}  # KerasCV: all or none
    shape = xp.shape(x["images"])
    labels = xp.cast(xp.convert_to_tensor(y["labels"]), "float32")  # what KerasCV's layers have
    boxes = from_xyxy(y["boxes"], bounding_box_format, (shape[-3], shape[-2]))
    boxes = xp.where((labels >= 0)[..., None], boxes, -xp.ones_like(boxes))
    return {**x, "bounding_boxes": {"boxes": boxes, label_key: labels}}


def as_function(
    layers: Callable | Sequence[Callable], bounding_box_format: str, label_key: str = "labels"
) -> Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]:
    """Makes a function for `data.Augmentation` from preprocessing layers that move boxes.

    Such layers draw from their own generators: what they do is not repeated when a run continues.

    Args:
        layers: a layer of Keras, KerasHub or KerasCV, or a list of them, made for
            `bounding_box_format`, that keeps the size of images.
        bounding_box_format: str, one of `FORMATS`.
        label_key: `"labels"` for Keras and KerasHub, `"classes"` for KerasCV.

    Returns:
        `function(sample, rng)`, which returns a sample as `data.Augmentation` requires.

    Raises:
        ValueError: if the key is unknown.

    Example:

    >>> import keras
    >>> from libra_keras import data
    >>> zoom = keras.layers.RandomZoom(0.2, bounding_box_format="xyxy", fill_mode="constant")
    >>> augment = data.Augmentation(functions=(data.dialects.as_function(zoom, "xyxy"),))
    >>> policy = data.InputPolicy(320, 320)
    >>> batches = data.training_batches(data.shapes(4), policy, 4, kind="py", augment=augment)
    >>> batches[0][0]["images"].shape
    (4, 320, 320, 3)
    """
    _check_key(label_key)
    layers = list(layers) if isinstance(layers, Sequence) else [layers]

    def layered(sample, rng):
        x = {"images": sample["images"][None]}
        y = {"boxes": sample["boxes"][None], "labels": sample["labels"][None]}
        theirs = to_sample(x, y, bounding_box_format, label_key)
        for layer in layers:
            theirs = layer(theirs, training=True)
        x, y = from_sample(theirs, bounding_box_format)
        image, boxes, labels = map(
            ops.convert_to_numpy, (x["images"][0], y["boxes"][0], y["labels"][0])
        )
        image = np.clip(np.rint(image), 0, 255).astype("uint8")
        return {"images": image, "boxes": boxes, "labels": labels}

    names = ", ".join(getattr(layer, "name", type(layer).__name__) for layer in layers)
    layered.__qualname__ = f"as_function({names})"
    return layered


def from_predictions(
    predictions: dict[str, Tensor], bounding_box_format: str, image_size: Tensor
) -> dict[str, Tensor]:
    """Translates predictions of a KerasCV or KerasHub detector to detections like ours.

    Args:
        predictions: dict of `"boxes"` `(B, D, 4)`, `"confidence"` `(B, D)`, `"classes"` or
            `"labels"` `(B, D)` and `"num_detections"` `(B,)`.
        bounding_box_format: str, one of `FORMATS`.
        image_size: `(height, width)` of the images, or a tensor `(B, 2)`.

    Returns:
        Dict of `"boxes"` `(B, D, 4)` in pixels, clipped to the image, `"scores"` `(B, D)`,
        `"labels"` int32 `(B, D)`, -1 in padding rows, and `"num_detections"` int32 `(B,)`.

    Raises:
        ValueError: if a key is missing or the format unknown.

    Example:

    >>> from keras import ops
    >>> from libra_keras.data import dialects
    >>> theirs = {"boxes": [[[1, 2, 3, 4]]], "confidence": [[0.5]], "classes": [[2]]}
    >>> ours = dialects.from_predictions({**theirs, "num_detections": [1]}, "xywh", (9, 9))
    >>> ops.convert_to_numpy(ours["boxes"]).tolist(), ops.convert_to_numpy(ours["labels"]).tolist()
    ([[[1.0, 2.0, 4.0, 6.0]]], [[2]])
    """
    keys = (("boxes",), ("confidence",), LABEL_KEYS)
    boxes, scores, labels = (_value(predictions, names) for names in keys)
    xp = operations(boxes, labels)
    labels = xp.cast(xp.convert_to_tensor(labels), "int32")
    real = labels >= 0
    boxes = clipped(to_xyxy(boxes, bounding_box_format, image_size), image_size)
    scores = xp.cast(xp.convert_to_tensor(scores), "float32")
    return {
        "boxes": xp.where(real[..., None], boxes, xp.zeros_like(boxes)),
        "scores": xp.where(real, scores, xp.zeros_like(scores)),
        "labels": xp.where(real, labels, -xp.ones_like(labels)),
        "num_detections": xp.cast(_value(predictions, ("num_detections",)), "int32"),
    }


def to_predictions(
    detections: dict[str, Tensor],
    bounding_box_format: str,
    image_size: Tensor,
    label_key: str = "labels",
) -> dict[str, Tensor]:
    """Translates our detections to a dict as predicted by KerasCV's and KerasHub's detectors.

    Args:
        detections: dict as `model.predict` returns it.
        bounding_box_format: str, one of `FORMATS`, of the result.
        image_size: `(height, width)` of the padded images.
        label_key: `"labels"` for KerasHub, `"classes"` for KerasCV.

    Returns:
        Dict of `"boxes"`, `"confidence"`, `label_key` (all -1 in padding rows) and
        `"num_detections"`.

    Raises:
        ValueError: if the format or the key is unknown.

    Example:

    >>> from libra_keras.data import dialects
    >>> ours = {"boxes": [[[1, 2, 4, 6]]], "scores": [[0.5]], "labels": [[2]]}
    >>> ours["num_detections"] = [1]
    >>> sorted(dialects.to_predictions(ours, "xywh", (9, 9), "classes"))
    ['boxes', 'classes', 'confidence', 'num_detections']
    """
    _check_key(label_key)
    xp = operations(detections["boxes"])
    labels = xp.convert_to_tensor(detections["labels"])
    scores = xp.cast(xp.convert_to_tensor(detections["scores"]), "float32")
    boxes = from_xyxy(detections["boxes"], bounding_box_format, image_size)
    return {
        "boxes": xp.where((labels >= 0)[..., None], boxes, -xp.ones_like(boxes)),
        "confidence": xp.where(labels >= 0, scores, -xp.ones_like(scores)),
        label_key: labels,
        "num_detections": detections["num_detections"],
    }


def _value(boxes, keys):
    for key in keys:
        if key in boxes:
            return boxes[key]
    raise ValueError(
        f"A dict of boxes must have the key {' or '.join(map(repr, keys))}. "
        f"Received the keys: {sorted(boxes)}"
    )


def _check_key(label_key):
    if label_key not in LABEL_KEYS:
        raise ValueError(f"`label_key` must be one of {LABEL_KEYS}. Received: {label_key!r}")


def _dense(values, shape):
    """Fills up the rows of a ragged tensor with -1, which as a label says padding."""
    if hasattr(values, "to_tensor"):
        return values.to_tensor(default_value=-1, shape=shape)
    return values


def _real_first(xp, real, boxes, labels):
    """Moves padding behind the boxes, whose order stays: cutting must not take boxes for it."""
    place = xp.cumsum(xp.ones_like(labels), axis=-1)
    behind = xp.cast(xp.logical_not(real), "int32") * xp.cast(xp.shape(labels)[-1], "int32")
    order = xp.argsort(place + behind, axis=-1)
    if xp is ops:
        return (
            ops.take_along_axis(boxes, order[..., None], axis=-2),
            ops.take_along_axis(labels, order, axis=-1),
        )
    batched = len(labels.shape) - 1
    return [xp.gather(values, order, batch_dims=batched) for values in (boxes, labels)]


def _fixed_rows(xp, values, rows, axis, value):
    """Cuts or fills up `axis` to `rows`, and tells TensorFlow so."""
    rank = len(values.shape)
    ends = [[0, rows if i == rank + axis else 0] for i in range(rank)]
    values = xp.pad(values, ends, constant_values=value)
    values = values[..., :rows, :] if axis == -2 else values[..., :rows]
    if hasattr(values, "set_shape"):
        shape = list(values.shape)
        shape[axis] = rows
        values.set_shape(shape)
    return values
