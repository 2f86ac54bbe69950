"""A detector as OpenVINO's intermediate representation."""

import os
import tempfile
from pathlib import Path

from libra_keras.export import folder, onnx
from libra_keras.export.options import ExportOptions, with_options
from libra_keras.keras_private import layers_in
from libra_keras.layers import MultilevelROIAlign
from libra_keras.models.detector import Detector

MODULES = (*onnx.MODULES, "openvino")


def export_openvino(
    model: Detector,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    options: ExportOptions | None = None,
    rounds: int = folder.ROUNDS,
) -> Path:
    """Writes a detector as `detector.xml` and `detector.bin`, with `detector.json` beside them.

    Inputs and outputs are those of `export_onnx`; B, H and W are free. OpenVINO cannot read NMS's
    loops, so a fixed number of rounds is written out. (Nor that of a RoIAlign with
    `sampling_ratio=0`: such a detector is refused.) One more output, `unfinished` int32 `(B,)`,
    counts the boxes of an image that the last round still changed: where it is 0, results are
    exact, and else some boxes may be missing or may overlap.

    Args:
        model: detector; it stays as it is.
        path: folder of the files; it is made.
        overwrite: whether an earlier export in it is replaced; it stays if this one fails.
        options: `ExportOptions`, of precision float32; `max_pixels` has no meaning here.
        rounds: how long a chain of boxes, each overlapping the next, may be among 128 boxes
            of similar score.

    Returns:
        `Path` of the file `detector.xml`.

    Raises:
        ValueError: as `export_onnx`, and if a RoIAlign has `sampling_ratio=0`.
        ImportError: as `export_onnx`.

    Example:

    ```python
    file = export_openvino(model, "exported")
    detect = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image, size = model.input_policy.prepare(libra_keras.data.read_image("photo.jpg"))
    found = detect({"images": image[None], "image_sizes": np.int32([size])})
    boxes, scores, unfinished = (found[key] for key in ("boxes", "scores", "unfinished"))
    ```
    """
    check_export(path, overwrite)
    check_loops(model)
    model = with_options(model, folder.check_precision(options))
    with folder.writing(path, model, rounds=rounds) as files:
        write(files.with_suffix(".xml"), model, rounds)
    return Path(path, f"{folder.NAME}.xml")


def write(file, model, rounds=folder.ROUNDS, specs=None):
    """Writes the graph of a detector, with `rounds` of its loops written out."""
    import openvino

    with tempfile.TemporaryDirectory() as made:
        intermediate = Path(made, "detector.onnx")
        onnx.write(intermediate, model, rounds, specs)
        graph = openvino.convert_model(intermediate)
        _order_ties(graph)
        openvino.save_model(graph, file, compress_to_fp16=False)


def check_loops(model):
    """Raises a ValueError if a detector has a loop that OpenVINO does not read."""
    for layer in layers_in(model):
        if isinstance(layer, MultilevelROIAlign) and layer.sampling_ratio == 0:
            raise ValueError(
                "OpenVINO does not read the loop of a RoIAlign with sampling_ratio=0. Export to "
                "ONNX or LiteRT, or use a detector with a fixed number of samples. "
                f"Received: sampling_ratio=0 in the layer {layer.name!r}"
            )


def _order_ties(graph):
    """Equal scores come by their index, as everywhere else, not in any order."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "TopK":
            node.set_attribute("stable", True)


def check_export(path, overwrite=False):
    """Raises what `export_openvino` would, before anything is computed."""
    folder.check_folder(path, overwrite, ".xml", MODULES)
