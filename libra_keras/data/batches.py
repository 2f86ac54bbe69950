"""Batches of a data set for `model.fit` and `model.predict`, on any backend."""

import keras

from libra_keras.data.loading import EvaluationSource, TrainingSource


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
    kind=None,
    threads=None,
    start_step=0,
    cache=None,
):
    """Makes the batches of a training run.

    Images are shuffled over the whole data set in each epoch, kept in proportion, resized,
    mirrored with probability `flip`, and padded at right and below. The order is a pure function
    of `seed` and the epoch: a run that starts at `start_epoch` and `start_step` continues as if
    never stopped, and what comes before is not read. Ignored boxes (crowds, difficult objects) are
    left out.

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
        kind: `"tf"` for a `tf.data.Dataset`, `"py"` for a `keras.utils.PyDataset`, which needs no
            TensorFlow. Both hold the same arrays in the same order. Defaults to `"tf"` where
            TensorFlow is Keras' backend, `"py"` elsewhere. Keras on TensorFlow takes the shapes
            of `"py"` from its first two batches, so there its images need one orientation. Give
            `fit` the option `shuffle=False`, else it takes the batches of `"py"` out of order.
        threads: int, images that are read at the same time. Defaults to what tf.data finds best,
            or one per CPU core, at most 8.
        start_step: int, the first batch of `start_epoch`; steps beyond its end lie in the epochs
            after it. Defaults to 0.
        cache: folder for decoded and resized images, which later epochs and runs read instead of
            the files, or `None` (default); see `ImageCache`. The batches are the same.

    Returns:
        Data set of `(x, y)`: `x` is a dict of `"images"` uint8 `(B, H, W, 3)` RGB,
        `"image_sizes"` int32 `(B, 2)` (height, width before padding), `"original_sizes"` int32
        `(B, 2)`, `"image_ids"` int64 `(B,)` and, for data `with_proposals`, `"proposals"` float32
        `(B, P, 4)` in pixels of the padded image, zeros in padding; `y` has `"boxes"` float32
        `(B, M, 4)` in pixels of the padded image and `"labels"` int32 `(B, M)`, -1 in padding.
        Its attribute `source` is the `TrainingSource`: `steps_per_epoch`,
        `batch_files(epoch, step)`, `damaged`.

    Raises:
        ValueError: if there is not one full batch, `start_epoch` or `start_step` is negative or
            behind the end, `kind` is another, or there is a `cache` but no image files. While
            iterating, `TooManyDamagedImages`, which tf.data wraps into an error of its own, stops
            a run in which over 1 % of the images are damaged, and names the files.

    Example:

    >>> from libra_keras import data
    >>> policy = data.InputPolicy(short_side=320, long_side=320)
    >>> batches = data.training_batches(data.shapes(8), policy, batch_size=4, epochs=1)
    >>> x, y = next(iter(batches))
    >>> tuple(x["images"].shape), len(y["boxes"]), len(batches)
    ((4, 320, 320, 3), 4, 2)
    """
    module = _module(kind)
    if drop_empty:
        data = data.subset([i for i, example in enumerate(data.examples) if example.num_boxes])
    source = TrainingSource(data, policy, batch_size, flip, seed, max_boxes, cache)
    start = start_epoch * source.steps_per_epoch + start_step
    end = None if epochs is None else (start_epoch + epochs) * source.steps_per_epoch
    if min(start_epoch, start_step) < 0 or (end is not None and start > end):
        raise ValueError(
            "`start_epoch` and `start_step` must not be negative or behind the end. "
            f"Received: start_epoch={start_epoch}, start_step={start_step}, epochs={epochs}"
        )
    return module.training(source, start, end, threads)


def evaluation_batches(data, policy, batch_size, kind=None, threads=None):
    """Makes batches that show every image once, for `predict`.

    Landscape images come first, then portrait ones. Each orientation ends with a smaller batch
    where its images do not fill one. A damaged image is shown blank, and noted in
    `dataset.source.damaged`.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int.
        kind, threads: as for `training_batches`.

    Returns:
        Data set of `x` as in `training_batches`; `x["image_ids"]` tells which is which.

    Raises:
        ValueError: if there is no image, `batch_size` is not positive, or `kind` is none that is
            known.

    Example:

    >>> from libra_keras import data
    >>> policy = data.InputPolicy(short_side=320, long_side=320)
    >>> batches = data.evaluation_batches(data.shapes(5), policy, batch_size=2)
    >>> [len(x["images"]) for x in batches]
    [2, 2, 1]
    """
    module = _module(kind)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    source = EvaluationSource(data, policy)
    if not source.groups:
        raise ValueError(f"Expected a data set with images. Received: {data.name} without any")
    return module.evaluation(source, batch_size, threads)


def _module(kind):
    """The module that makes batches of a kind; only that of tf.data imports TensorFlow."""
    if kind is None:
        kind = "tf" if keras.backend.backend() == "tensorflow" else "py"
    if kind == "tf":
        try:
            from libra_keras.data import pipeline
        except ImportError as error:
            raise ImportError('Batches of kind="tf" need TensorFlow; kind="py" do not') from error
        return pipeline
    if kind == "py":
        from libra_keras.data import py_dataset

        return py_dataset
    raise ValueError(f'`kind` must be "tf", "py" or None. Received: kind={kind!r}')
