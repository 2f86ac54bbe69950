"""The signatures of an exported detector: from a client's images to boxes in their pixels."""

from libra_keras.export import decoding
from libra_keras.export.network import SPECS
from libra_keras.export.preparing import prepare_batch

RESULTS = {  # dtype and padding of what each image gets
    "detection_boxes": ("float32", 0),
    "detection_scores": ("float32", 0),
    "detection_classes": ("int32", -1),
    "num_detections": ("int32", 0),
}
IMAGES = {  # of each signature: the name, shape and dtype of its images
    "serving_default": ("image_bytes", (None,), "string"),
    "images": ("images", (None, None, None, 3), "uint8"),
    "images_float": ("images", (None, None, None, 3), "float32"),
}


def signatures(model, run, max_pixels):
    """Makes the functions that a SavedModel offers; all call the same network.

    Args:
        model: detector.
        run: what `network(model)` returned.
        max_pixels: int; images with more are refused.

    Returns:
        Dict from the name of a signature to its `ConcreteFunction`.

    Example:

    >>> from libra_keras.export.network import network
    >>> from libra_keras.export.serving import signatures
    >>> from libra_keras.models import retinanet_small
    >>> model = retinanet_small(num_classes=6)
    >>> sorted(signatures(model, network(model), max_pixels=10**8))
    ['images', 'images_float', 'prepared', 'serving_default']
    """
    openers = {
        "serving_default": lambda data: decoding.decode(data, max_pixels),
        "images": lambda image: _checked(image, max_pixels),
        "images_float": lambda image: _rounded(image, max_pixels),
    }
    made = {name: _signature(model, run, name, opener) for name, opener in openers.items()}
    return {**made, "prepared": _prepared(model, run)}


def _prepared(model, run):
    import tensorflow as tf

    def prepared(**given):
        return run(*(given[name] for name in model.INPUTS))

    specs = {name: tf.TensorSpec(*SPECS[name], name=name) for name in model.INPUTS}
    return _traced(prepared, specs)


def _signature(model, run, signature, opener):
    import tensorflow as tf

    name, shape, dtype = IMAGES[signature]
    class_names = model.class_names or [str(i) for i in range(model.num_classes)]

    def serve(**given):
        batch = prepare_batch(opener, given[name], model.input_policy)
        found = _detect(model, run, batch, given.get("proposals"))
        named = tf.gather([*class_names, ""], found["detection_classes"] % (len(class_names) + 1))
        return {**found, "detection_class_names": named, "status": batch.status}

    specs = {name: tf.TensorSpec(shape, dtype, name=name)}
    if "proposals" in model.INPUTS:
        specs["proposals"] = tf.TensorSpec(*SPECS["proposals"], name="proposals")
    return _traced(serve, specs)


def _traced(function, specs):
    import tensorflow as tf

    return tf.function(function, autograph=False).get_concrete_function(**specs)


def _detect(model, run, batch, proposals):
    """Runs landscapes and portraits one after the other: a detector's batch has one size.

    A loop, not two calls: the network is in the graph once, and is run only for the orientations
    that occur, and only on images that could be read.
    """
    import tensorflow as tf

    usable = batch.status == decoding.OK
    portraits = [usable & ~batch.is_portrait, usable & batch.is_portrait]
    kinds = tf.boolean_mask([False, True], [tf.reduce_any(rows) for rows in portraits])
    if proposals is not None:  # those of an image cannot be gathered where there are none
        proposals = tf.pad(proposals, ((0, 0), (0, 1), (0, 0)))
    buckets = tf.constant(
        [model.input_policy.bucket_size(1, 1), model.input_policy.bucket_size(2, 1)]
    )

    def again(i, results):
        rows = tf.where(usable & (batch.is_portrait == kinds[i]))
        own = type(batch)(*(tf.gather_nd(values, rows) for values in batch))
        height, width = tf.unstack(buckets[tf.cast(kinds[i], tf.int32)])
        images = tf.reshape(own.pixels, tf.stack([-1, height, width, 3]))
        x = [images, own.sizes]
        if proposals is not None:
            x.append(tf.gather_nd(proposals, rows) * _factors(own.sizes, own.original_sizes))
        found = _detections(run(*x), own)
        return i + 1, {
            key: tf.tensor_scatter_nd_update(results[key], rows, found[key]) for key in results
        }

    start = _nothing(run, tf.size(batch.status))
    loop = tf.while_loop(lambda i, _: i < tf.size(kinds), again, (0, start), maximum_iterations=2)
    return loop[1]


def _nothing(run, batch_size):
    """Results without a detection."""
    import tensorflow as tf

    most = run.get_concrete_function().structured_outputs["scores"].shape[1]
    shapes = {"detection_boxes": (most, 4), "num_detections": ()}
    return {
        key: tf.fill([batch_size, *shapes.get(key, (most,))], tf.cast(value, dtype))
        for key, (dtype, value) in RESULTS.items()
    }


def _detections(found, batch):
    """What a network found, in pixels of the original images; proposals have the class 0."""
    import tensorflow as tf

    if "mask" in found:
        labels = tf.where(found["mask"], 0, -1)
        num = tf.reduce_sum(tf.cast(found["mask"], tf.int32), axis=1)
    else:
        labels, num = found["labels"], found["num_detections"]
    return {
        "detection_boxes": found["boxes"] * _factors(batch.original_sizes, batch.sizes),
        "detection_scores": found["scores"],
        "detection_classes": tf.cast(labels, tf.int32),
        "num_detections": tf.cast(num, tf.int32),
    }


def _factors(to_sizes, from_sizes):
    """What boxes `(B, N, 4)` are multiplied with; divided in float64, as `detect` does."""
    import tensorflow as tf

    factors = tf.cast(tf.cast(to_sizes, tf.float64) / tf.cast(from_sizes, tf.float64), tf.float32)
    return tf.tile(factors[:, ::-1], (1, 2))[:, None]


def _checked(image, max_pixels):
    """An image as it is, and its status."""
    import tensorflow as tf

    num = tf.reduce_prod(tf.cast(tf.shape(image)[:2], tf.int64))
    is_large = tf.where(num > max_pixels, decoding.LARGE, decoding.OK)
    return image, tf.where(num == 0, decoding.EMPTY, is_large)


def _rounded(image, max_pixels):
    """A float image as uint8; one with NaN or values outside 0..255 has no pixels."""
    import tensorflow as tf

    is_good = tf.reduce_all((image >= 0) & (image <= 255))  # NaN is neither
    pixels = tf.cast(tf.round(tf.where(is_good, image, 0.0)), tf.uint8)
    _, status = _checked(image, max_pixels)
    return pixels, tf.where(is_good | (status != decoding.OK), status, decoding.NO_PIXELS)
