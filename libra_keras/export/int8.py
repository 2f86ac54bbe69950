"""An exported detector in int8: calibrated on images, and measured before and after on others."""

import contextlib
import dataclasses
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from libra_keras import evaluation
from libra_keras.data import DetectionData
from libra_keras.data.batches import EvaluationSource
from libra_keras.data.findings import TooManyDamagedImages
from libra_keras.evaluation.class_matching import check_classes, relabelled
from libra_keras.evaluation.coco_metrics import collect
from libra_keras.export import folder
from libra_keras.models import RegionProposalNetwork

OLDEST = 1, 21  # of onnxruntime; 1.20 gives a bias that levels share the scale of the first one
MODULES = ("onnxruntime",)  # whose quantizer this is, whichever runtime the file is for
FEW = 32  # images; fewer tell little about the ranges of activations
MOST = 100  # images to calibrate on, and to measure on
LEAST = 0.01  # AP of a detector that has learned
MOST_LOST = 0.005  # of AP, for the sake of which no layer stays in float
WITH_WEIGHTS = ("Conv", "MatMul", "Gemm")


@dataclasses.dataclass(frozen=True)
class Images:
    """The images that ranges are taken from, and those that AP is measured on; `shape` is the
    height and width that all are padded to, or `None`."""

    calibrating: DetectionData
    measuring: DetectionData
    shape: tuple[int, int] | None = None


def images(model, precision, data, shape=None):
    """Returns the `Images` for an export, `None` if it is not in int8.

    Raises what is wrong with the data before anything is computed."""
    if precision != "int8":
        if data is not None:
            raise ValueError(
                f"`calibration` is for an export in int8. Received: precision={precision!r}"
            )
        return None
    if data is None:
        raise ValueError(
            "An export in int8 requires `calibration`, images like those that the detector will "
            "see, with their boxes. Received: calibration=None"
        )
    _check_kind(model, data)
    return _divided(data, _fitting(model, data, shape), shape)


def check_quantizer(graph):
    """Raises if onnxruntime is not installed, or too old."""
    folder.check_packages(graph, MODULES)
    import onnxruntime

    installed = onnxruntime.__version__
    if tuple(int(number) for number in re.findall(r"\d+", installed)[:2]) < OLDEST:
        raise ImportError(
            f"An export in int8 requires onnxruntime {'.'.join(map(str, OLDEST))} or newer. "
            f"Installed: {installed}"
        )


def _check_kind(model, data):
    """Raises if the detector cannot be run or measured on the data."""
    if "proposals" in model.INPUTS and data.max_proposals is None:
        raise ValueError(
            f"A {type(model).__name__} proposes no boxes, and {data.name} has no proposals to "
            "calibrate with: add some with `libra_keras.data.with_proposals`"
        )
    if not isinstance(model, RegionProposalNetwork):
        check_classes(model.class_names, model.num_classes, data)


def _fitting(model, data, shape):
    """Numbers of the images that fit into a shape once they are resized."""
    if not len(data):
        raise ValueError(f"There are no images to calibrate with: {data.summary()}")
    if shape is None:
        return np.arange(len(data))
    sizes = [model.input_policy.fitted_size(each.height, each.width) for each in data.examples]
    fitting = np.flatnonzero((np.array(sizes) <= shape).all(axis=1))
    if not len(fitting):
        raise ValueError(
            f"None of the {len(data)} images of {data.name} fits into {shape[0]}x{shape[1]} pixels "
            "(height x width) after resizing; calibrate with images of that orientation"
        )
    return fitting


def _divided(data, numbers, shape):
    """Takes images from all parts of the data: a third, with boxes, measures; others calibrate."""
    if len(numbers) < FEW:
        warnings.warn(
            f"{data.name} has {len(numbers)} images to calibrate with, fewer than {FEW}: "
            "the ranges of activations and the AP may be off",
            stacklevel=4,
        )
    with_boxes = [i for i in numbers if data.examples[i].num_boxes]
    if not with_boxes:
        raise ValueError(
            f"None of the {len(numbers)} images of {data.name} has a box to measure AP with; an "
            "export in int8 requires images with objects"
        )
    measuring = _spread(with_boxes, max(len(numbers) // 3, 1))
    others = np.setdiff1d(numbers, measuring) if len(numbers) > 1 else numbers
    return Images(data.subset(_spread(others, MOST)), data.subset(measuring), shape)


def _spread(numbers, most):
    """So many of the numbers, at most `MOST`, from all parts of them."""
    count = min(len(numbers), most, MOST)
    return np.asarray(numbers)[np.linspace(0, len(numbers) - 1, count).astype(int)]


# `source` and `file` are the paths of the float32 and of the int8 file. `start` loads an ONNX file
# into the runtime that the export is for, and returns a function from a dict of inputs to a dict of
# outputs. The note gets AP before and after, numbers of images, and the layers that are in float.
def quantize(source, file, model, images, start, verbose=0):
    """Writes an ONNX file in int8 that keeps in float what costs too much AP; returns a dict for
    the note."""
    metric = "AR@100" if isinstance(model, RegionProposalNetwork) else "AP"
    calibrating, measuring = (
        _Batches(model, data, images.shape) for data in (images.calibrating, images.measuring)
    )

    def measured(graph, kept=None):
        _tell(f"measuring {_called(kept)}: {len(measuring)} images", verbose)
        value = _measured(start(graph), model, measuring, verbose)[metric]
        _tell(f"{metric} {value:.4f}", verbose)
        return value

    with tempfile.TemporaryDirectory() as made, _damage_told():
        graph = Path(made, "fused.onnx")
        _fuse(source, graph)
        _tell(f"calibrating: {len(calibrating)} images", verbose)
        ranges = _ranges(graph, model, calibrating, verbose)
        before = measured(source)
        chosen, after = _best(_attempts(graph, model, ranges), measured, before - MOST_LOST)
        shutil.copyfile(chosen.file, file)
    _warn_of(metric, before, after, images)
    return {
        f"{metric}_float32": round(float(before), 4),
        f"{metric}_int8": round(float(after), 4),
        "images": len(images.measuring),
        "calibrated_on": len(images.calibrating),
        "data": images.measuring.name,
        "float_layers": sorted(chosen.kept),
    }


def _tell(line, verbose):
    if verbose:
        print(line, flush=True)


def _called(kept):
    """What a file is called whose layers that stay in float are `kept`; `None`: all of them."""
    if kept is None:
        return "float32"
    return f"int8, {len(kept)} layers in float" if kept else "int8"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An int8 file, and the names of the layers that it keeps in float."""

    file: Path
    kept: list[str]


def _attempts(graph, model, ranges):
    """Writes and yields an `Attempt` for each choice of layers, beside the graph."""
    for number, kept in enumerate(_candidates(graph, model)):
        file = graph.with_name(f"{number}.onnx")  # a runtime may still read the last one
        _write(graph, file, ranges, kept)
        yield Attempt(file, kept)


def _best(attempts, measured, enough):
    """The first attempt that measures enough, or the best one, and what it measures."""
    best = None
    for attempt in attempts:
        value = measured(attempt.file, attempt.kept)
        if best is None or value > best[1]:
            best = attempt, value
        if value >= enough:
            break
    return best


def _warn_of(metric, before, after, images):
    if not before >= LEAST:  # NaN, too
        warnings.warn(
            f"In float32 the detector has {metric} {before:.4f} on {images.measuring.name}, which "
            "does not tell what int8 costs: are these the right images, and is the score "
            "threshold low?",
            stacklevel=5,
        )
    elif before - after > MOST_LOST:
        warnings.warn(
            f"int8 costs {before - after:.4f} {metric} with the best choice of layers that stay "
            f"in float, more than {MOST_LOST}",
            stacklevel=5,
        )


@contextlib.contextmanager
def _damage_told():
    """Files that cannot be read are a mistake in the data, as those of other readers are."""
    try:
        yield
    except TooManyDamagedImages as error:
        raise ValueError(str(error)) from error


class _Batches:
    """The images of some data as `evaluation_batches` gives them, one at a time and padded to a
    shape. A damaged one is named when it is first seen, however often they are gone through."""

    def __init__(self, model, data, shape):
        self.source = EvaluationSource(data, model.input_policy)
        self.shape = shape

    def __len__(self):
        return len(self.source.data)

    def __iter__(self):
        for i in np.concatenate(self.source.groups):
            values = zip(self.source.inputs, self.source.sample(i), strict=True)
            x = {name: value[None] for name, value in values}
            yield x if self.shape is None else {**x, "images": _padded(x, self.shape)}


def _padded(x, shape):
    height, width = x["image_sizes"][0]
    padded = np.zeros((1, *shape, 3), "uint8")
    padded[:, :height, :width] = x["images"][:, :height, :width]
    return padded


def _measured(run, model, batches, verbose):
    """The metrics of a detector as a runtime runs it."""

    def predict(x):
        found = run({name: x[name] for name in model.INPUTS})
        if "mask" in found:  # of proposals, which have no class
            found["labels"] = np.where(found.pop("mask"), 0, -1)
        return {name: found[name] for name in ("boxes", "scores", "labels")}

    data = batches.source.data
    found = collect(predict, batches, verbose)
    if isinstance(model, RegionProposalNetwork):
        return evaluation.proposal_recall(data, found, counts=(100,))
    return evaluation.evaluate_detections(data, relabelled(found, model.class_names, data))


def _fuse(source, file):
    """Merges biases into the layers before them: int8 kernels take a bias, and no addition."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _ranges(graph, model, batches, verbose):
    """The smallest and the largest value of every tensor that may be quantized."""
    from onnxruntime.quantization import create_calibrator

    augmented = graph.with_name("augmented.onnx")
    calibrator = create_calibrator(graph, WITH_WEIGHTS, augmented_model_path=str(augmented))
    bar = keras.utils.Progbar(len(batches), verbose=verbose, unit_name="image")
    for step, x in enumerate(batches, 1):  # one by one: it would keep what all of them give
        calibrator.collect_data(_Reader({name: x[name] for name in model.INPUTS}))
        bar.update(step)
    return calibrator.compute_data()


class _Reader:
    """One dict of inputs, as onnxruntime's calibrators read them."""

    def __init__(self, x):
        self.left = [x]

    def get_next(self):
        """Returns the dict once, then `None`."""
        return self.left.pop() if self.left else None


def _candidates(file, model):
    """Yields names of layers that stay in float: none, then ever more of those near the end."""
    graph = _load(file)
    layers = {layer_of(node): node for node in weighted(graph)}
    heads = [name for name in layers if _is_within(name, model.heads())]
    neck = [name for name in layers if _is_within(name, model.neck)]
    rectified = {node.input[0] for node in graph.node if node.op_type == "Relu"}
    last = [name for name in heads if layers[name].output[0] not in rectified]
    yield from ([], last, heads, heads + neck)


def _load(file):
    import onnx

    return onnx.load(file).graph


def weighted(graph):
    """Returns the nodes of an ONNX graph that compute with weights."""
    constants = {weight.name for weight in graph.initializer}
    return [
        node for node in graph.node if node.op_type in WITH_WEIGHTS and node.input[1] in constants
    ]


def layer_of(node):
    """Returns the name of the layer whose weights a node has: the converter keeps their scopes,
    and one layer may be a node for each level of a pyramid."""
    return node.input[1].rsplit("/", 2)[0]


def _is_within(name, layers):
    """Whether a scope lies in that of one of the layers; TensorFlow numbers what repeats."""
    scopes = [rf"{re.escape(layer.name)}(_\d+)?" for layer in layers]
    return (
        any(re.fullmatch("|".join(scopes), part) for part in name.split("/")) if scopes else False
    )


def _write(source, file, ranges, kept):
    """Writes a graph in which all layers but those that are kept are quantized."""
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    nodes = [node.name for node in weighted(model.graph) if layer_of(node) not in kept]
    options = {"per_channel": True, "reduce_range": False}
    types = {"weight_qType": QuantType.QInt8, "activation_qType": QuantType.QUInt8}
    quantizer = QDQQuantizer(
        model,
        **options,
        **types,
        tensors_range=ranges,
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=WITH_WEIGHTS,
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made = quantizer.model.model  # it works on a copy
    del made.graph.value_info[:]  # shapes within the graph, as in a float32 file
    used = {node.domain for node in made.graph.node}
    unused = [each for each in made.opset_import if each.domain not in used]
    for each in unused:
        made.opset_import.remove(each)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, file)
