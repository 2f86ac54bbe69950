"""A detector as a LiteRT (TensorFlow Lite) file, of builtin operations only."""

import os
import tempfile
from pathlib import Path

from libra_keras.export import folder
from libra_keras.export.network import SPECS, network
from libra_keras.export.options import ExportOptions, check_precision, with_options
from libra_keras.functional import control_flow
from libra_keras.models.detector import Detector

ORIENTATIONS = {"landscape": (3, 4), "portrait": (4, 3)}  # of images, height and width


def export_litert(
    model: Detector,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    options: ExportOptions | None = None,
    batch_size: int | None = 1,
    num_proposals: int = 1000,
) -> Path:
    """Writes a detector as `detector.tflite`, with `detector.json` beside it.

    Inputs and outputs are those of `export_onnx`, but LiteRT requires fixed sizes. The file has one
    signature for each of the two sizes that `model.input_policy` pads images to: `landscape` and,
    unless both are the same square, `portrait`. They share the weights. NMS is a loop that runs
    until it is done, so results are exact. No TensorFlow operations ("Flex") are required.

    Args:
        model: detector; it is not changed.
        path: folder of both files; it is created.
        overwrite: whether an earlier export there is replaced; it is kept if this one fails.
        options: `ExportOptions` with precision float32; `max_pixels` has no effect here.
        batch_size: images per call, or `None` for any number, which is slower: fewer
            operations then run in XNNPACK.
        num_proposals: P, for a `FastRCNN`.

    Returns:
        `Path` of the file `detector.tflite`.

    Raises:
        ValueError: if the folder contains something else, the backend is not TensorFlow, or an
            option does not fit.

    Example:

    ```python
    file = export_litert(model, "exported")
    detect = ai_edge_litert.interpreter.Interpreter(str(file)).get_signature_runner("landscape")
    image, size = model.input_policy.prepare(libra_keras.data.read_image("photo.jpg"))
    found = detect(images=image[None], image_sizes=np.int32([size]))
    ```
    """
    options = options or ExportOptions()
    check_export(path, overwrite, options.precision)
    model = with_options(model, options)
    graphs = graphs_of_policy(model, batch_size, num_proposals)
    sizes = {"batch_size": batch_size, "signatures": list(graphs)}
    with folder.writing(path, model, **sizes) as files:
        files.with_suffix(".tflite").write_bytes(converted(graphs))
    return Path(path, f"{folder.NAME}.tflite")


def check_export(path, overwrite=False, precision="float32"):
    """Raises what `export_litert` would, before anything is computed."""
    check_precision(precision, "litert")
    folder.check_folder(path, overwrite, ".tflite", ())  # TensorFlow has the converter


def graphs_of_policy(model, batch_size, num_proposals):
    """Returns a network of fixed sizes for each orientation, by the name of its signature."""
    sizes = {name: model.input_policy.bucket_size(*shape) for name, shape in ORIENTATIONS.items()}
    if sizes["landscape"] == sizes["portrait"]:
        del sizes["portrait"]
    graphs = {}
    for name, size in sizes.items():
        shapes = {
            "images": (batch_size, *size, 3),
            "image_sizes": (batch_size, 2),
            "proposals": (batch_size, num_proposals, 4),
        }
        graphs[name] = graph(model, {k: (shape, SPECS[k][1]) for k, shape in shapes.items()})
    return graphs


def graph(model, specs):
    """Returns the network of a detector, with loops that LiteRT runs; `specs` as for `network`."""
    with control_flow.straight_line():
        return network(model, specs)


def converted(graphs):
    """Returns the bytes of a LiteRT file; `graphs` are networks by the names of signatures."""
    import tensorflow as tf

    traced = {name: graph.get_concrete_function() for name, graph in graphs.items()}
    bundle = tf.Module()
    bundle.weights = [list(graph.variables) for graph in traced.values()]
    with tempfile.TemporaryDirectory() as made:
        tf.saved_model.save(bundle, made, signatures=traced)
        converter = tf.lite.TFLiteConverter.from_saved_model(made, signature_keys=list(traced))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()
