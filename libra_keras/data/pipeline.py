"""Batches for `model.fit` and `model.predict` as `tf.data`. TensorFlow only moves the arrays."""

import functools

import tensorflow as tf

from libra_keras.data.loading import EvaluationSource, TrainingSource

SPECS = {  # of one sample: image, size of its content, size of the file, id
    "images": tf.TensorSpec((None, None, 3), tf.uint8),
    "image_sizes": tf.TensorSpec((2,), tf.int32),
    "original_sizes": tf.TensorSpec((2,), tf.int32),
    "image_ids": tf.TensorSpec((), tf.int64),
}


def training_batches(
    data,
    policy,
    batch_size,
    flip=0.5,
    seed=0,
    epochs=None,
    start_epoch=0,
    max_boxes=None,
    drop_empty=False,
):
    """Makes the batches of a training run.

    Images are shuffled over the whole data set in each epoch, kept in proportion, resized,
    mirrored with probability `flip`, and padded at right and below. The order is a pure function
    of `seed` and the epoch: a run that starts at `start_epoch` continues as if never stopped.
    Ignored boxes (crowds, difficult objects) are left out.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int, images per batch (over all devices together).
        flip: float in [0, 1]. Defaults to 0.5.
        seed: int. Defaults to 0.
        epochs: int, epochs until the data set ends, or `None` (default) for an endless one, with
            which `fit` needs `steps_per_epoch=dataset.source.steps_per_epoch`.
        start_epoch: int, the first epoch. Defaults to 0.
        max_boxes: int, M, rows of boxes per image. Defaults to the most boxes of one image.
        drop_empty: bool, whether images without boxes are left out. Defaults to `False`: they
            teach the model what is background.

    Returns:
        `tf.data.Dataset` of `(x, y)`: `x` is a dict of `"images"` uint8 `(B, H, W, 3)` RGB,
        `"image_sizes"` int32 `(B, 2)` (height, width before padding), `"original_sizes"` int32
        `(B, 2)`, `"image_ids"` int64 `(B,)` and, for data `with_proposals`, `"proposals"` float32
        `(B, P, 4)` in pixels of the padded image, zeros in padding; `y` has `"boxes"` float32
        `(B, M, 4)` in pixels of the padded image and `"labels"` int32 `(B, M)`, -1 in padding.
        Its attribute `source` is the `TrainingSource`: `steps_per_epoch`,
        `batch_files(epoch, step)`, `damaged`.

    Raises:
        ValueError: if there is not one full batch. While iterating, a TensorFlow error that
            names the files stops a run in which over 1 % of the images are damaged.

    Example:

    >>> from libra_keras import data
    >>> policy = data.InputPolicy(short_side=320, long_side=320)
    >>> batches = data.training_batches(data.shapes(8), policy, batch_size=4, epochs=1)
    >>> x, y = next(iter(batches))
    >>> x["images"].shape.as_list(), y["boxes"].shape.as_list()[::2], len(batches)
    ([4, 320, 320, 3], [4, 4], 2)
    """
    if drop_empty:
        data = data.subset([i for i, example in enumerate(data.examples) if example.num_boxes])
    source = TrainingSource(data, policy, batch_size, flip, seed, max_boxes)
    specs = (
        *_input_specs(source),
        tf.TensorSpec((source.max_boxes, 4), tf.float32),
        tf.TensorSpec((source.max_boxes,), tf.int32),
    )
    per_epoch = source.steps_per_epoch * batch_size
    last = tf.int64.max if epochs is None else (start_epoch + epochs) * per_epoch
    numbers = tf.data.Dataset.range(start_epoch * per_epoch, last // batch_size * batch_size)
    dataset = _loaded(numbers, source.sample, specs).batch(batch_size, drop_remainder=True)
    if epochs is None:
        endless = tf.data.experimental.INFINITE_CARDINALITY
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(endless))
    dataset = dataset.map(functools.partial(_as_pair, source.inputs)).prefetch(tf.data.AUTOTUNE)
    dataset.source = source
    return dataset


def evaluation_batches(data, policy, batch_size):
    """Makes batches that show every image once, for `predict`.

    Landscape images come first, then portrait ones. Each orientation ends with a smaller batch
    where its images do not fill one. A damaged image is shown blank, and noted in
    `dataset.source.damaged`.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int.

    Returns:
        `tf.data.Dataset` of `x` as in `training_batches`; `x["image_ids"]` tells which is which.

    Example:

    >>> from libra_keras import data
    >>> policy = data.InputPolicy(short_side=320, long_side=320)
    >>> batches = data.evaluation_batches(data.shapes(5), policy, batch_size=2)
    >>> [len(x["images"]) for x in batches]
    [2, 2, 1]
    """
    source = EvaluationSource(data, policy)
    dataset = None
    for group in source.groups:
        indices = tf.data.Dataset.from_tensor_slices(group.astype("int64"))
        batches = _loaded(indices, source.sample, _input_specs(source)).batch(batch_size)
        dataset = batches if dataset is None else dataset.concatenate(batches)
    if dataset is None:
        raise ValueError(f"Expected a data set with images. Received: {data.name} without any")
    dataset = dataset.map(functools.partial(_as_inputs, source.inputs)).prefetch(tf.data.AUTOTUNE)
    dataset.source = source
    return dataset


def _loaded(numbers, load, specs):
    """Maps numbers to the arrays of `load(number)`, several at a time, in order."""
    dtypes = [spec.dtype for spec in specs]

    def mapped(number):
        arrays = tf.numpy_function(load, [number], dtypes, stateful=False)
        return tuple(tf.ensure_shape(a, s.shape) for a, s in zip(arrays, specs, strict=True))

    return numbers.map(mapped, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _input_specs(source):
    proposals = {"proposals": tf.TensorSpec((source.data.max_proposals, 4), tf.float32)}
    specs = {**SPECS, **proposals}
    return tuple(specs[name] for name in source.inputs)


def _as_inputs(names, *arrays):
    return dict(zip(names, arrays, strict=True))


def _as_pair(names, *arrays):
    *inputs, boxes, labels = arrays
    return _as_inputs(names, *inputs), {"boxes": boxes, "labels": labels}
