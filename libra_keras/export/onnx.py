"""A detector as an ONNX file, for onnxruntime."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from libra_keras.data import DetectionData
from libra_keras.export import folder, int8
from libra_keras.export.network import network
from libra_keras.export.onnx_operations import Placeholders
from libra_keras.export.options import ExportOptions, check_precision, with_options
from libra_keras.functional import control_flow
from libra_keras.models.detector import Detector

OPSET = 18
MODULES = ("tf2onnx", "onnx")
NEEDS = {"onnxruntime": "1.21"}  # the oldest that the extras ask for
AXES = {  # of the inputs, whose sizes are free
    "images": ("batch", "height", "width"),
    "image_sizes": ("batch",),
    "proposals": ("batch", "proposals"),
}
OUTPUT_AXES = ("batch", "detections")


def export_onnx(
    model: Detector,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    options: ExportOptions | None = None,
    shape: tuple[int, int] | None = None,
    calibration: DetectionData | None = None,
    verbose: int = 1,
) -> Path:
    """Writes a detector as `detector.onnx`, with `detector.json` beside it.

    The graph takes what `model.input_policy.prepare` makes of images: `images` uint8
    `(B, H, W, 3)`, RGB, and `image_sizes` int32 `(B, 2)`, height and width before padding; a
    `FastRCNN` also `proposals` float32 `(B, P, 4)` in pixels of the padded image, zeros in
    padding. It returns what `model.predict` returns, with boxes in pixels of the padded image. B, H
    and W are free. NMS and RoIAlign are ONNX's own operations. That RoIAlign has no limit such as
    `max_sampling_ratio`: with `sampling_ratio=0`, boxes more than 16 times as long as wide may
    differ slightly.

    The note has the class names, the input policy, the thresholds and, under `needs`, the versions
    that the file requires. `recipes/run_onnx.py` runs the export on photographs with NumPy, Pillow
    and onnxruntime only.

    Args:
        model: detector; it is not changed.
        path: folder of both files; it is created.
        overwrite: whether an earlier export there is replaced; it is kept if this one fails.
        options: `ExportOptions` with precision float32 or int8; `max_pixels` has no effect here.
        shape: height and width of all images, multiples of the input policy's `pad_multiple`; B
            stays free. Images are resized according to the policy and padded to this shape; larger
            ones do not fit. Free by default.
        calibration: for int8, `DetectionData` with images like those that the detector will see,
            and boxes of its classes. Up to 100 images calibrate the ranges of activations, and AP
            is measured before and after on up to 100 others, with these options, in onnxruntime on
            the CPU: this takes minutes. A `RegionProposalNetwork` is measured by AR@100.
        verbose: what an export in int8 prints: 0 nothing, 1 each stage with a progress bar, 2 with
            a line at its end.

    In int8, activations are uint8 and weights int8, per channel. If that costs more than 0.005 of
    AP, the last layers of the heads stay in float, then the heads, then the pyramid as well. The
    note gives AP before and after under `int8`, and the layers that are in float. On x86 CPUs
    without VNNI sums may saturate: measure AP there again.

    Returns:
        `Path` of the ONNX file.

    Raises:
        ValueError: if the folder contains something else, the backend is not TensorFlow, or an
            option or the shape does not fit; in int8, if the calibration is missing, has no
            images, no boxes or other classes than the detector, or too many damaged images.
        ImportError: if the packages of `libra-keras[onnx]` are missing.

    Example:

    ```python
    file = export_onnx(model, "exported")
    session = onnxruntime.InferenceSession(file)
    image, size = model.input_policy.prepare(libra_keras.data.read_image("photo.jpg"))
    found = session.run(None, {"images": image[None], "image_sizes": np.int32([size])})
    ```
    """
    options = options or ExportOptions()
    check_export(path, overwrite, options.precision)
    shape = folder.checked_shape(model, shape)
    images = int8.images(model, options.precision, calibration, shape)
    model, specs = with_options(model, options), folder.fixed_specs(shape)
    told: dict[str, Any] = {"int8": {}} if images else {}
    with folder.writing(path, model, shape=shape, opset=OPSET, needs=NEEDS, **told) as files:
        if images:
            file = files.with_suffix(".onnx")
            told["int8"] |= write_int8(file, model, images, start, specs, verbose)
        else:
            write(files.with_suffix(".onnx"), model, specs)
    return Path(path, f"{folder.NAME}.onnx")


def check_export(path, overwrite=False, precision="float32"):
    """Raises what `export_onnx` would, before anything is computed."""
    check_precision(precision, "onnx")
    folder.check_folder(path, overwrite, ".onnx", MODULES)
    if precision == "int8":
        int8.check_quantizer(".onnx")


def write_int8(file, model, images, start, specs=None, verbose=0):
    """Writes the graph as `int8.quantize` does, and returns what it says."""
    with tempfile.TemporaryDirectory() as made:
        source = Path(made, "float32.onnx")
        write(source, model, specs)
        return int8.quantize(source, file, model, images, start, verbose)


def start(file):
    """Loads a file into onnxruntime: a function from a dict of inputs to a dict of outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, x), strict=True))


def write(file, model, specs=None):
    """Writes the graph of a detector; `specs` as for `network`."""
    import onnx

    placeholders = Placeholders()
    with control_flow.straight_line(placeholders.operations):
        function = network(model, specs)
    graph = converted(function, placeholders)
    _name_axes(graph.graph)
    onnx.checker.check_model(graph, full_check=True)  # what fails the converter only logs
    onnx.save(graph, file)


def converted(function, placeholders):
    """Returns a `tf.function` that was traced with `placeholders` as a model of ONNX."""
    import tf2onnx

    with _quick(), _without_warnings():
        graph, _ = tf2onnx.convert.from_function(
            function,
            function.input_signature,
            opset=OPSET,
            custom_op_handlers=placeholders.handlers,
        )
    return graph


def _name_axes(graph):
    """Gives each axis one name on all tensors; the converter numbers those that are free."""
    for tensor in [*graph.input, *graph.output]:
        names = AXES.get(tensor.name, OUTPUT_AXES)
        for side, name in zip(tensor.type.tensor_type.shape.dim, names, strict=False):
            if name == "detections" or not side.HasField("dim_value"):
                side.dim_param = name
    del graph.value_info[:]  # shapes within the graph, under the old names


@contextlib.contextmanager
def _without_warnings():
    """The converter warns of each placeholder, whose shape only the next node tells."""
    logger = logging.getLogger("tf2onnx.shape_inference")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _quick():
    """Without a copy of the graph for each of tf2onnx's passes, in case one fails."""
    name = "TF2ONNX_CATCH_ERRORS"
    old = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        os.environ.pop(name) if old is None else os.environ.update({name: old})
