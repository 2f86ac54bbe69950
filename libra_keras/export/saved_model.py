"""A detector as a TensorFlow SavedModel."""

from pathlib import Path

import keras

from libra_keras import atomic
from libra_keras.functional import native

SPECS = {  # of what detectors take, by name: shape and dtype
    "images": ((None, None, None, 3), "uint8"),
    "image_sizes": ((None, 2), "int32"),
    "proposals": ((None, None, 4), "float32"),
}
NOTE = "detector.json"


def export_saved_model(model, path, overwrite=False):
    """Writes a detector as a SavedModel that gives the boxes of `model.predict`.

    Its signature `serving_default` takes what `model.input_policy.prepare` makes of an image:
    `images` uint8 `(B, H, W, 3)`, RGB, resized and padded at the right and the bottom to multiples
    of 32, and `image_sizes` int32 `(B, 2)`, height and width before padding. It returns `boxes`
    float32 `(B, D, 4)` in pixels of the padded image, `scores` float32 `(B, D)`, `labels` int32
    `(B, D)` (-1 is padding) and `num_detections` int32 `(B,)`. B, H and W are free. A `FastRCNN`
    also takes `proposals` float32 `(B, P, 4)` in pixels of the padded image, zeros in padding; a
    `RegionProposalNetwork` returns `boxes`, `scores` and `mask` bool `(B, P)`, false in padding.

    Resizing is left to the caller on purpose: the training's kernel is Pillow's, and TensorFlow's
    own differs by a few grey levels, which moves boxes. The sizes and the class names lie in
    `detector.json` beside the graph.

    The graph holds portable operations only, no XLA-compiled parts, so that any runtime of
    TensorFlow can load it.

    Args:
        model: detector.
        path: folder of the SavedModel.
        overwrite: bool, whether an earlier SavedModel in it is replaced; it stays if the export
            fails.

    Raises:
        ValueError: if the folder is not empty, and `overwrite` is false or what it holds is no
            SavedModel; or if the backend is not TensorFlow.

    Example:

    ```python
    export_saved_model(model, "detector")
    detect = tf.saved_model.load("detector").signatures["serving_default"]
    image, size = model.input_policy.prepare(libra_keras.data.read_image("photo.jpg"))
    found = detect(images=tf.constant(image[None]), image_sizes=tf.constant([size]))
    ```
    """
    path = Path(path)
    check_export(path, overwrite)
    policy = model.input_policy.get_config()
    with atomic.replacing(path) as unfinished:
        _archive(model).write_out(str(unfinished), verbose=False)
        note = {"class_names": model.class_names, "input_policy": policy}
        atomic.write_json(unfinished / NOTE, note)


def check_export(path, overwrite=False):
    """Raises what `export_saved_model` would, before anything is computed.

    Raises:
        ValueError: as `export_saved_model` does.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.export.saved_model import check_export
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "photo.jpg").write_text("precious")
    >>> try:
    ...     check_export(folder, overwrite=True)
    ... except ValueError as error:
    ...     print(str(error).replace(str(folder), "FOLDER").split(".")[0])
    FOLDER holds something that is no SavedModel
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A SavedModel is written with KERAS_BACKEND=tensorflow. "
            f"Received: backend {keras.backend.backend()!r}"
        )
    _check_room(Path(path), overwrite)


def _archive(model):
    import tensorflow as tf

    def serve(x):
        with native.portable():  # while the graph is made
            outputs = model(x, training=False)
        return {name: outputs[name] for name in model.OUTPUTS}

    # Not `track`ed: that would trace and save a call with images alone, in its compiled form.
    archive = keras.export.ExportArchive()
    signature = {name: tf.TensorSpec(*SPECS[name], name=name) for name in model.INPUTS}
    archive.add_endpoint("serving_default", serve, input_signature=[signature])
    return archive


def _check_room(path, overwrite):
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    is_export = (path / "saved_model.pb").is_file()
    if not (overwrite and is_export):
        what = "is not empty" if is_export else "holds something that is no SavedModel"
        raise ValueError(f"{path} {what}. Choose another folder, or overwrite an earlier export")
