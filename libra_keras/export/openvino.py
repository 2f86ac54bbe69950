"""A detector as OpenVINO's intermediate representation."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from libra_keras.data import DetectionData
from libra_keras.export import folder, int8, onnx
from libra_keras.export.options import ExportOptions, check_precision, with_options
from libra_keras.models.detector import Detector

MODULES = (*onnx.MODULES, "openvino")
NEEDS = {"openvino": "2025.0"}  # the oldest that reads the file
MOST = math.isqrt(2**31 - 1)  # values whose order is a 32-bit number: the largest that CPUs have


def export_openvino(
    model: Detector,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    options: ExportOptions | None = None,
    shape: tuple[int, int] | None = None,
    calibration: DetectionData | None = None,
    verbose: int = 1,
) -> Path:
    """Writes a detector as `detector.xml` and `detector.bin`, with `detector.json` beside them.

    Inputs, outputs and results are those of `export_onnx`. Make OpenVINO compute in float32, as in
    the example: its defaults, bfloat16 on CPUs with AMX and float16 on GPUs, move boxes.

    Args:
        model: detector; it is not changed.
        path: folder of the files; it is created.
        overwrite: whether an earlier export there is replaced; it is kept if this one fails.
        options: `ExportOptions` with precision float32 or int8; `max_pixels` has no effect here.
        shape: height and width of all images, as for `export_onnx`. OpenVINO plans ahead for known
            sizes, which may be faster.
        calibration: for int8, `DetectionData`, as for `export_onnx`; AP is measured in OpenVINO.
        verbose: what an export in int8 prints, as for `export_onnx`.

    Returns:
        `Path` of the file `detector.xml`.

    Raises:
        ValueError: as `export_onnx`.
        ImportError: as `export_onnx`.

    Example:

    ```python
    file = export_openvino(model, "exported")
    detect = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image, size = model.input_policy.prepare(libra_keras.data.read_image("photo.jpg"))
    found = detect({"images": image[None], "image_sizes": np.int32([size])})
    boxes, scores = found["boxes"], found["scores"]
    ```
    """
    options = options or ExportOptions()
    check_export(path, overwrite, options.precision)
    shape = folder.checked_shape(model, shape)
    images = int8.images(model, options.precision, calibration, shape)
    model, specs = with_options(model, options), folder.fixed_specs(shape)
    told: dict[str, Any] = {"int8": {}} if images else {}
    with folder.writing(path, model, shape=shape, needs=NEEDS, **told) as files:
        if images:
            told["int8"] |= _write_int8(files.with_suffix(".xml"), model, images, specs, verbose)
        else:
            write(files.with_suffix(".xml"), model, specs)
    return Path(path, f"{folder.NAME}.xml")


def write(file, model, specs=None):
    """Writes the graph of a detector; `specs` as for `network`."""
    with tempfile.TemporaryDirectory() as made:
        intermediate = Path(made, "detector.onnx")
        onnx.write(intermediate, model, specs)
        convert(intermediate, file)


def _write_int8(file, model, images, specs, verbose):
    """Writes the graph as `int8.quantize` does, and returns what it says."""
    with tempfile.TemporaryDirectory() as made:
        intermediate = Path(made, "int8.onnx")
        told = onnx.write_int8(intermediate, model, images, start, specs, verbose)
        convert(intermediate, file)
    return told


def convert(source, file):
    """Writes what an ONNX file holds."""
    import openvino

    openvino.save_model(_read(source), file, compress_to_fp16=False)


def start(source):
    """Loads an ONNX file into OpenVINO: a function from a dict of inputs to a dict of outputs."""
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    detect = openvino.Core().compile_model(_read(source), "CPU", exact)
    return lambda x: {key.any_name: np.array(value) for key, value in detect(x).items()}


def _read(source):
    """The graph of an ONNX file as OpenVINO's, which it may go on reading from the file."""
    import openvino

    # `convert_model` fuses attention, and 2026.4 takes a known height for a number of heads: each
    # row of the image would attend to itself alone. Read as it is, an R50 is faster as well: 0.44
    # instead of 0.50 s.
    graph = openvino.Core().read_model(source)
    _decide_ties(graph)
    return graph


def _decide_ties(graph):
    """Equal scores come by their index, and overlaps equal to the threshold suppress nothing."""
    from openvino import opset13

    for node in graph.get_ordered_ops():
        if node.get_type_name() == "TopK":  # else in any order
            _order(node)
        if node.get_type_name() == "NonMaxSuppression":  # OpenVINO compares by >=
            threshold = node.input(3)
            value = threshold.get_source_output().get_node().get_data()
            above = np.nextafter(value, np.inf, dtype="float32")
            threshold.replace_source_output(opset13.constant(above).output(0))


# `stable` would do, but OpenVINO then compares each of n values with each of the k best: of a
# ResNet-50 with 80 classes that took half of the time.
def _order(node):
    """Has a TopK of the largest values return the indices of equal ones in their order."""
    from openvino import opset13 as op

    attributes, rank = node.get_attributes(), node.output(0).get_partial_shape().rank
    is_last = attributes["axis"] in (-1, rank.get_length() - 1)
    if attributes["mode"] != "max" or not is_last or not 0 < _constant(node.input(1)) <= MOST:
        node.set_attribute("stable", True)
        return
    readers, kind = node.output(1).get_target_inputs(), node.output(1).get_element_type()
    data, best, last = node.input_value(0), node.output(0), op.constant(-1)
    k = op.convert(node.input_value(1), "i32")
    n = op.convert(op.gather(op.shape_of(data), last, op.constant(0)), "i32")
    zero, one = op.constant(np.int32(0)), op.constant(np.int32(1))
    places = op.range(zero, k, one, "i32")

    def smallest(values):
        return op.topk(values, k, -1, "min", "value", "i32")

    # Of the values that equal the last one, those with the lowest indices.
    lowest = op.reduce_min(best, last, keep_dims=True)
    is_above = op.greater(best, lowest)
    num_above = op.reduce_sum(op.convert(is_above, "i32"), last, keep_dims=True)
    numbers = op.select(op.equal(data, lowest), op.range(zero, n, one, "i32"), n)
    later = op.maximum(op.subtract(places, num_above), zero)
    equal_last = op.gather_elements(smallest(numbers).output(0), later, -1)
    # Of the others all are there: sorted by their index, then by the number of their value.
    before = op.gather(best, op.maximum(op.subtract(places, one), zero), last)
    number = op.cum_sum(op.convert(op.not_equal(best, before), "i32"), last)
    by_index = smallest(op.convert(node.output(1), "i32"))
    keys = op.multiply(op.gather_elements(number, by_index.output(1), -1), k)
    order = smallest(op.add(keys, places)).output(1)
    above = op.gather_elements(by_index.output(0), order, -1)
    found = op.convert(op.select(is_above, above, equal_last), kind.to_string())
    for reader in readers:
        reader.replace_source_output(found.output(0))


def _constant(given):
    """The number that an input of a node is; 0 if that depends on others."""
    source = given.get_source_output().get_node()
    return int(source.get_data()) if source.get_type_name() == "Constant" else 0


def check_export(path, overwrite=False, precision="float32"):
    """Raises what `export_openvino` would, before anything is computed."""
    check_precision(precision, "openvino")
    folder.check_folder(path, overwrite, ".xml", MODULES)
    if precision == "int8":
        int8.check_quantizer(".xml")
