"""A detector as a TensorFlow SavedModel, with the layout and signatures of TensorFlow Serving."""

import contextlib
import os
import re
from pathlib import Path

import keras

import libra_keras
from libra_keras.export.network import SPECS, network
from libra_keras.export.options import (
    ExportOptions,
    check_precision,
    thresholds,
    with_options,
)
from libra_keras.export.preparing import (
    EMPTY,
    LARGE,
    NO_PIXELS,
    OK,
    STATUS,
    decode,
    prepare_batch,
)
from libra_keras.files import atomic
from libra_keras.files.locks import alone
from libra_keras.files.replacing import Kind, check_replaceable
from libra_keras.models.detector import Detector

GRAPH = "saved_model.pb"
NOTE = "assets.extra/detector.json"  # where TensorFlow leaves room for others' files
VERSION = Kind("export", NOTE, (GRAPH, "fingerprint.pb", "variables/", "assets/", NOTE))
LOCK = ".lock"  # no number: no server takes it for a version
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


def export_saved_model(
    model: Detector,
    path: str | os.PathLike[str],
    version: int | None = None,
    overwrite: bool = False,
    options: ExportOptions | None = None,
) -> Path:
    """Writes a detector as a SavedModel that takes images and gives the boxes of `model.detect`.

    The folder gets a version, `path/1`, `path/2` and so on: it is what TensorFlow Serving takes as
    the base path of a model, and it serves the highest version. Everything is in the graph:
    decoding, the training's resize kernel, padding, detection, boxes in the images' own pixels.
    It requires neither this package nor XLA.

    Signatures, with images of any size:

    - `serving_default`: `image_bytes` string `(B,)`, JPEG or PNG files (over REST
      `{"b64": ...}`), each of its own size;
    - `images`: `images` uint8 `(B, H, W, 3)`, RGB;
    - `images_float`: `images` float32 `(B, H, W, 3)` from 0 to 255;
    - `prepared`: `images` and `image_sizes` as `model.input_policy.prepare` makes them, boxes in
      pixels of the padded image: what `model.predict` takes and returns.

    A `FastRCNN` also takes `proposals` float32 `(B, P, 4)` in pixels of the images, zeros in
    padding. The first three return `detection_boxes` float32 `(B, D, 4)`, x1, y1, x2, y2 in pixels;
    `detection_scores` float32 and `detection_classes` int32 `(B, D)`, from 0, -1 in padding;
    `detection_class_names` string `(B, D)`; `num_detections` int32 `(B,)`; and `status` int32
    `(B,)`: not 0 if an image could not be used; it then has no detections, and the others are not
    affected. `assets.extra/detector.json` in the version's folder has the classes, the input
    policy, the thresholds and what each status means.

    Args:
        model: detector; it is not changed.
        path: folder of all versions; its name is the model's name.
        version: at least 1. Defaults to one more than the highest in the folder, or to 1.
        overwrite: whether an earlier export of this `version` is replaced; it is kept if the export
            fails. A running server does not notice, but it does notice a new version.
        options: `ExportOptions`. By default float32 and the detector's own thresholds.

    Returns:
        `Path` of the version's folder.

    Raises:
        ValueError: if the version exists and `overwrite` is false, or the folder contains other
            things; if another export is being written to it; if the backend is not TensorFlow; or
            if an option does not fit the detector.

    Example:

    ```python
    export_saved_model(model, "exported/cats")
    detect = tf.saved_model.load("exported/cats/1").signatures["serving_default"]
    found = detect(image_bytes=tf.constant([open("photo.jpg", "rb").read()]))
    ```
    """
    path = Path(path)
    options = options or ExportOptions()
    check_export(path, version, overwrite, options.precision)
    model = with_options(model, options)
    is_new = not path.exists()
    try:
        with alone(path / LOCK, path):
            version = check_export(path, version, overwrite)  # what nobody else chooses now
            with atomic.replacing(path / str(version)) as unfinished:  # nor is this a number
                _save(model, unfinished, options)
                (unfinished / NOTE).parent.mkdir()
                atomic.write_json(unfinished / NOTE, _note(model, options))
                check_export(path, version, overwrite)  # of use where there are no locks
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return path / str(version)


def check_export(path, version=None, overwrite=False, precision="float32"):
    """Raises what `export_saved_model` would, and returns the version that it would write."""
    check_precision(precision, "saved_model")
    check_backend("A SavedModel")
    if version is not None and (version != int(version) or version < 1):
        raise ValueError(f"`version` must be an int of at least 1. Received: version={version!r}")
    path = Path(path)
    check_name(path)
    versions = _versions(path)
    if version is None:
        return max(versions, default=0) + 1
    own = path / str(version)
    if own.exists() and not overwrite:
        raise ValueError(f"{own} exists. Choose another version, or overwrite the earlier export")
    check_replaceable(own, VERSION, overwrite)
    return version


def check_backend(what):
    """Raises a ValueError unless TensorFlow is the backend, which all exports are made with."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} is written with KERAS_BACKEND=tensorflow. "
            f"Received: backend {keras.backend.backend()!r}"
        )


def _versions(path):
    """Numbers of the versions in a folder, which must hold some unless it is empty."""
    if not path.exists():
        return []
    if not path.is_dir():
        raise ValueError(f"{path} is a file; SavedModels need a folder")
    names = [entry.name for entry in path.iterdir()]
    found = [int(name) for name in names if name.isascii() and name.isdigit()]
    if (path / GRAPH).is_file():
        raise ValueError(
            f"{path} is a SavedModel without a version. Choose another folder: each version gets "
            "its own folder in it"
        )
    left_over = all(name.startswith((".unfinished.", ".old.", LOCK)) for name in names)
    if not left_over and not any((path / str(number) / GRAPH).is_file() for number in found):
        raise ValueError(f"{path} contains something other than SavedModels. Choose another folder")
    if found and not any((path / str(number) / NOTE).is_file() for number in found):
        raise ValueError(f"{path} contains SavedModels of another program. Choose another folder")
    return found


def check_name(path):
    """Raises a ValueError unless a SavedModel can be written to a path, and read from it."""
    path = Path(path)
    if re.match(r"[a-z0-9]{2,}:/", str(path)):  # gs://, s3://; `Path` makes one of two slashes
        raise ValueError(
            f"Exports can only be written to this machine; copy them afterwards. Received: {path}"
        )
    if wild := sorted(set("*?[") & set(str(path.absolute()))):
        raise ValueError(
            f"TensorFlow finds no files in a folder whose path has {' '.join(wild)}. "
            f"Received: {path}"
        )


def _save(model, folder, options):
    import tensorflow as tf

    run = network(model)
    bundle = tf.Module()
    # All that the graph reads, and nothing else: no statistics, no counters of training. (With the
    # function as an attribute the graph would be saved twice.)
    bundle.weights = list(run.get_concrete_function().variables)
    tf.saved_model.save(bundle, str(folder), signatures=signatures(model, run, options.max_pixels))


def _note(model, options):
    return {
        "class_names": model.class_names,
        "input_policy": model.input_policy.get_config(),
        "thresholds": {**thresholds(model), "max_pixels": options.max_pixels},
        "precision": options.precision,
        "status": {str(code): meaning for code, meaning in STATUS.items()},
        "boxes": "x1, y1, x2, y2 in pixels of the original image; the corner at the left top is 0",
        "libra_keras": libra_keras.__version__,
    }


def signatures(model, run, max_pixels):
    """Makes the functions that a SavedModel offers; all call the same network."""
    openers = {
        "serving_default": lambda data: decode(data, max_pixels),
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
    """Runs landscapes and portraits one after the other: a detector's batch has one size."""
    # A loop, not two calls: the network is in the graph once, and is run only for the orientations
    # that occur, and only on images that could be read.
    import tensorflow as tf

    usable = batch.status == OK
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
    is_large = tf.where(num > max_pixels, LARGE, OK)
    return image, tf.where(num == 0, EMPTY, is_large)


def _rounded(image, max_pixels):
    """A float image as uint8; one with NaN or values outside 0..255 has no pixels."""
    import tensorflow as tf

    is_good = tf.reduce_all((image >= 0) & (image <= 255))  # NaN is neither
    pixels = tf.cast(tf.round(tf.where(is_good, image, 0.0)), tf.uint8)
    _, status = _checked(image, max_pixels)
    return pixels, tf.where(is_good | (status != OK), status, NO_PIXELS)
