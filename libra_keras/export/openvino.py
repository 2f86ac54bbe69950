"""A detector as OpenVINO's intermediate representation."""

import os
import tempfile
from pathlib import Path

import numpy as np

from libra_keras.export import folder, onnx
from libra_keras.export.options import ExportOptions, with_options
from libra_keras.models.detector import Detector

MODULES = (*onnx.MODULES, "openvino")
NEEDS = {"openvino": "2025.0"}  # the oldest that reads the file


def export_openvino(
    model: Detector,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    options: ExportOptions | None = None,
    shape: tuple[int, int] | None = None,
) -> Path:
    """Writes a detector as `detector.xml` and `detector.bin`, with `detector.json` beside them.

    Inputs, outputs and results are those of `export_onnx`. Make OpenVINO compute in float32, as in
    the example: its defaults, bfloat16 on CPUs with AMX and float16 on GPUs, move boxes.

    Args:
        model: detector; it is not changed.
        path: folder of the files; it is created.
        overwrite: whether an earlier export there is replaced; it is kept if this one fails.
        options: `ExportOptions` with precision float32; `max_pixels` has no effect here.
        shape: height and width of all images, as for `export_onnx`. OpenVINO plans ahead for known
            sizes, which may be faster.

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
    check_export(path, overwrite)
    model = with_options(model, folder.check_precision(options))
    shape = folder.checked_shape(model, shape)
    specs = folder.fixed_specs(shape)
    with folder.writing(path, model, shape=shape, needs=NEEDS) as files:
        write(files.with_suffix(".xml"), model, specs)
    return Path(path, f"{folder.NAME}.xml")


def write(file, model, specs=None):
    """Writes the graph of a detector; `specs` as for `network`."""
    with tempfile.TemporaryDirectory() as made:
        intermediate = Path(made, "detector.onnx")
        onnx.write(intermediate, model, specs)
        convert(intermediate, file)


def convert(source, file):
    """Writes what an ONNX file holds."""
    import openvino

    graph = openvino.convert_model(source)
    _decide_ties(graph)
    openvino.save_model(graph, file, compress_to_fp16=False)


def _decide_ties(graph):
    """Equal scores come by their index, and overlaps equal to the threshold suppress nothing."""
    from openvino import opset13

    for node in graph.get_ordered_ops():
        if node.get_type_name() == "TopK":  # else in any order
            node.set_attribute("stable", True)
        if node.get_type_name() == "NonMaxSuppression":  # OpenVINO compares by >=
            threshold = node.input(3)
            value = threshold.get_source_output().get_node().get_data()
            above = np.nextafter(value, np.inf, dtype="float32")
            threshold.replace_source_output(opset13.constant(above).output(0))


def check_export(path, overwrite=False):
    """Raises what `export_openvino` would, before anything is computed."""
    folder.check_folder(path, overwrite, ".xml", MODULES)
