"""Batches for `model.fit` and `model.predict` as `tf.data`."""

import functools

import tensorflow as tf

SPECS = {  # of one sample: image, size of its content, size of the file, id
    "images": tf.TensorSpec((None, None, 3), tf.uint8),
    "image_sizes": tf.TensorSpec((2,), tf.int32),
    "original_sizes": tf.TensorSpec((2,), tf.int32),
    "image_ids": tf.TensorSpec((), tf.int64),
}


def training(source, start, end, threads=None):
    """Returns the `tf.data.Dataset` of batches `start` to `end`, endless if that is `None`."""
    specs = (
        *_input_specs(source),
        tf.TensorSpec((source.max_boxes, 4), tf.float32),
        tf.TensorSpec((source.max_boxes,), tf.int32),
    )
    batch_size = source.plan.batch_size
    last = tf.int64.max // batch_size if end is None else end
    numbers = tf.data.Dataset.range(start * batch_size, last * batch_size)
    samples = _loaded(numbers, source.sample, specs, threads)
    dataset = samples.batch(batch_size, drop_remainder=True)
    if end is None:
        endless = tf.data.experimental.INFINITE_CARDINALITY
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(endless))
    dataset = dataset.map(functools.partial(_as_pair, source.inputs)).prefetch(tf.data.AUTOTUNE)
    dataset.source = source
    return dataset


def evaluation(source, batch_size, threads=None):
    """Returns the `tf.data.Dataset` that shows every image once; see `data.evaluation_batches`."""
    dataset = None
    for group in source.groups:
        indices = tf.data.Dataset.from_tensor_slices(group.astype("int64"))
        samples = _loaded(indices, source.sample, _input_specs(source), threads)
        batches = samples.batch(batch_size)
        dataset = batches if dataset is None else dataset.concatenate(batches)
    dataset = dataset.map(functools.partial(_as_inputs, source.inputs)).prefetch(tf.data.AUTOTUNE)
    dataset.source = source
    return dataset


def _loaded(numbers, load, specs, threads):
    """Maps numbers to the arrays of `load(number)`, several at a time, in order."""
    dtypes = [spec.dtype for spec in specs]

    def mapped(number):
        arrays = tf.numpy_function(load, [number], dtypes, stateful=False)
        return tuple(tf.ensure_shape(a, s.shape) for a, s in zip(arrays, specs, strict=True))

    return numbers.map(mapped, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True)


def _input_specs(source):
    proposals = {"proposals": tf.TensorSpec((source.data.max_proposals, 4), tf.float32)}
    specs = {**SPECS, **proposals}
    return tuple(specs[name] for name in source.inputs)


def _as_inputs(names, *arrays):
    return dict(zip(names, arrays, strict=True))


def _as_pair(names, *arrays):
    *inputs, boxes, labels = arrays
    return _as_inputs(names, *inputs), {"boxes": boxes, "labels": labels}
