"""A detector as a TensorFlow SavedModel, in the layout that TensorFlow Serving reads."""

import contextlib
import re
from pathlib import Path

import keras

import libra_keras
from libra_keras.export.decoding import STATUS
from libra_keras.export.network import network
from libra_keras.export.options import ExportOptions, thresholds, with_options
from libra_keras.export.serving import signatures
from libra_keras.files import atomic
from libra_keras.files.locks import alone
from libra_keras.files.replacing import Kind, check_replaceable

GRAPH = "saved_model.pb"
NOTE = "assets.extra/detector.json"  # where TensorFlow leaves room for others' files
VERSION = Kind("export", NOTE, (GRAPH, "fingerprint.pb", "variables/", "assets/", NOTE))
LOCK = ".lock"  # no number: no server takes it for a version


def export_saved_model(model, path, version=None, overwrite=False, options=None):
    """Writes a detector as a SavedModel that takes images and gives the boxes of `model.detect`.

    The folder gets a version, `path/1`, `path/2` and so on: it is what TensorFlow Serving takes as
    the base path of a model, and it serves the highest version. Everything is in the graph:
    decoding, the training's resize kernel, padding, detection, boxes in the images' own pixels.
    No part of it needs this package or XLA.

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
    `(B,)`: other than 0 if an image could not be used, and then it has no detections; the others
    have theirs. `assets.extra/detector.json` in the version's folder has the classes, the input
    policy, the thresholds and what each status means.

    Args:
        model: detector; it stays as it is.
        path: folder of all versions; its name is the model's name.
        version: int, at least 1. Defaults to the highest in the folder and 1, or 1.
        overwrite: bool, whether an earlier export of this `version` is replaced; it stays if the
            export fails. A server that runs does not notice; a new version it does.
        options: `ExportOptions`. By default float32 and the detector's own thresholds.

    Returns:
        `Path` of the version's folder.

    Raises:
        ValueError: if the version exists and `overwrite` is false, or the folder holds other
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
    check_export(path, version, overwrite)
    options = options or ExportOptions()
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


def check_export(path, version=None, overwrite=False):
    """Raises what `export_saved_model` would, before anything is computed.

    Returns:
        int, the version that it would write.

    Raises:
        ValueError: as `export_saved_model` does.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.export.saved_model import check_export
    >>> folder = Path(tempfile.mkdtemp())
    >>> check_export(folder)
    1
    >>> _ = (folder / "photo.jpg").write_text("precious")
    >>> try:
    ...     check_export(folder, overwrite=True)
    ... except ValueError as error:
    ...     print(str(error).replace(str(folder), "FOLDER").split(".")[0])
    FOLDER holds something that is no SavedModel
    """
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
        raise ValueError(f"{own} exists. Choose another version, or overwrite an earlier export")
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
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
    found = [int(name) for name in names if name.isascii() and name.isdigit()]
    if (path / GRAPH).is_file():
        raise ValueError(
            f"{path} is a SavedModel without a version. Choose another folder: each version gets "
            "its own folder in it"
        )
    left_over = all(name.startswith((".unfinished.", ".old.", LOCK)) for name in names)
    if not left_over and not any((path / str(number) / GRAPH).is_file() for number in found):
        raise ValueError(f"{path} holds something that is no SavedModel. Choose another folder")
    if found and not any((path / str(number) / NOTE).is_file() for number in found):
        raise ValueError(f"{path} holds SavedModels of another program. Choose another folder")
    return found


def check_name(path):
    """Raises a ValueError unless a SavedModel can be written to a path, and read from it."""
    path = Path(path)
    if re.match(r"[a-z0-9]{2,}:/", str(path)):  # gs://, s3://; `Path` makes one of two slashes
        raise ValueError(f"Exports are written to this machine; copy them. Received: {path}")
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
