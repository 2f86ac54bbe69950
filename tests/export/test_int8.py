"""Exports in int8: what is quantized, what stays in float, what it says of AP, what is refused."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from export.test_runtimes import RUNNERS, check_axes, need, run_recipe
from untrained import make

from libra_keras import data, evaluation, export
from libra_keras.data.examples import coco_annotations
from libra_keras.export import int8, onnx

POLICY = data.InputPolicy(64, 96)
SHAPES = SimpleNamespace(INPUTS=("images", "image_sizes"), input_policy=POLICY)


def detector(**own):
    return SimpleNamespace(
        **{**vars(SHAPES), "class_names": data.shapes(1).class_names, "num_classes": 6, **own}
    )


@pytest.mark.parametrize(
    ("model", "scenes", "shape", "message"),
    [
        (detector(), data.shapes(9).subset([]), None, "There are no images to calibrate with"),
        (detector(class_names=["cat"]), data.shapes(40), None, "does not know 6 of the 6 classes"),
        (detector(class_names=None, num_classes=2), data.shapes(40), None, "2 classes without"),
        (detector(INPUTS=("images", "proposals")), data.shapes(40), None, "with_proposals"),
        (detector(), data.shapes(40), (32, 96), "None of the 40 images .* fits into 32x96 pixels"),
        (detector(), data.shapes(40).subset([19, 39] * 16), None, "has a box"),
        (detector(), None, None, "requires `calibration`"),
    ],
)
def test_data_that_cannot_calibrate_are_refused(model, scenes, shape, message):
    with pytest.raises(ValueError, match=message):
        int8.images(model, "int8", scenes, shape)


def test_data_of_an_export_in_float_are_refused():
    assert int8.images(detector(), "float32", None) is None
    with pytest.raises(ValueError, match="Received: precision='float32'"):
        int8.images(detector(), "float32", data.shapes(40))


def test_few_images_are_warned_of():
    with pytest.warns(UserWarning, match="has 3 images to calibrate with, fewer than 32"):
        found = int8.images(detector(), "int8", data.shapes(3))
    assert len(found.calibrating) == 2 and len(found.measuring) == 1
    with pytest.warns(UserWarning, match="has 1 images"):
        found = int8.images(detector(), "int8", data.shapes(1))
    assert len(found.calibrating) == len(found.measuring) == 1


def test_images_with_boxes_measure():
    scenes = data.shapes(40)
    empty = next(i for i in range(40) if not scenes.examples[i].num_boxes)
    found = int8.images(detector(), "int8", scenes.subset([empty] * 20 + [*range(20)]))
    assert all(each.num_boxes for each in found.measuring.examples)
    with pytest.raises(ValueError, match="None of the 32 images .* has a box to measure AP with"):
        int8.images(detector(), "int8", scenes.subset([empty] * 32))


def test_an_older_quantizer_is_refused(monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    int8.check_quantizer(".onnx")
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.1")
    with pytest.raises(ImportError, match="onnxruntime 1.21 or newer. Installed: 1.20.1"):
        int8.check_quantizer(".onnx")


@pytest.mark.parametrize(("num", "parts"), [(32, (22, 10)), (150, (100, 50)), (900, (100, 100))])
def test_images_calibrate_or_measure(num, parts):
    found = int8.images(detector(), "int8", data.shapes(num))
    ids = [{each.image_id for each in own.examples} for own in (found.calibrating, found.measuring)]
    assert tuple(map(len, ids)) == parts and not ids[0] & ids[1]
    assert max(ids[0] | ids[1]) > num - 2  # from all parts of the data


def test_a_damaged_image_is_named_once(damaged_voc, caplog):
    batches = int8._Batches(detector(), data.voc(damaged_voc, "train"), None)
    for _ in range(2):  # as for float32 and each choice of layers
        blank = [not x["images"].any() for x in batches]
        assert len(batches) == len(blank) == 4 and blank[1] and not blank[0]
    assert [record.args[0].name for record in caplog.records] == ["image_1.jpg"]


@pytest.mark.parametrize("kind", ["saved_model", "litert"])
def test_other_formats_refuse_int8(kind, tmp_path):
    options = export.ExportOptions("int8")
    with pytest.raises(ValueError, match=f"{kind} is .*; int8 is for onnx and openvino"):
        getattr(export, f"export_{kind}")(None, tmp_path / "exported", options=options)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model():
    return make("libra_faster_rcnn_small")


@pytest.fixture(scope="module")
def found(model):
    """Drawn scenes with the objects that the detector, which was never trained, finds there."""
    scenes, examples = data.shapes("train", 36), []
    for example in scenes.examples:
        own = model.detect(scenes.read_image(example.image_id - 1))
        boxes, labels = own["boxes"].astype("float32"), own["labels"]
        ignore = np.zeros(len(boxes), bool)
        examples.append(data.Example(example.image_id, "", 320, 320, boxes, labels, ignore))
    annotations = coco_annotations(examples, ("a", "b"))
    return data.DetectionData("found", ("a", "b"), (1, 2), examples, annotations, scenes_of(scenes))


def scenes_of(scenes):
    return lambda example: scenes.read_image(example.image_id - 1)


def exported(kind, model, found, path, **options):
    need("onnx", kind)
    write = getattr(export, f"export_{kind}")
    settings = export.ExportOptions("int8")
    file = write(model, path, options=settings, calibration=found, **options)
    return file, json.loads((path / "detector.json").read_text())["int8"]


def measured(kind, file, model, found):
    """AP of a file, by the way of `evaluate`."""
    run = RUNNERS[kind](file)
    alone = SimpleNamespace(
        predict_on_batch=lambda x: run({name: x[name] for name in model.INPUTS}),
        input_policy=model.input_policy,
        class_names=model.class_names,
        num_classes=model.num_classes,
    )
    own = int8.images(model, "int8", found).measuring
    return evaluation.evaluate(alone, own, batch_size=1, verbose=0)["AP"]


def check_quantized(file, told):
    """Unsigned activations, signed weights with a scale for each channel; the rest is as told."""
    import onnx as reader

    graph = reader.load(file)
    reader.checker.check_model(graph, full_check=True)
    assert [each.domain for each in graph.opset_import] == [""]
    graph = graph.graph
    assert not graph.value_info
    check_axes(graph)
    constants = {weight.name: reader.numpy_helper.to_array(weight) for weight in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {constants[node.input[2]].dtype for node in quantizers} == {np.dtype("uint8")}
    weights = {
        node.output[0]: node for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }  # fmt: skip
    assert {node.op_type for node in graph.node} >= {"NonMaxSuppression", "RoiAlign"}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and node.input[1] in weights:
            values, scale = (constants[name] for name in weights[node.input[1]].input[:2])
            assert values.dtype == np.int8 and scale.ndim == 1 and len(scale) in values.shape
    assert sorted({int8.layer_of(node) for node in int8.weighted(graph)}) == told["float_layers"]
    assert len(weights) > 20


@pytest.mark.slow
def test_onnx(model, found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(int8, "MOST_LOST", 1.0)  # the first choice will do: no layer in float
    file, told = exported("onnx", model, found, tmp_path / "exported", verbose=2)
    stages = ["calibrating: 24 images", "24/24 ", "measuring float32: 12 images", "12/12 "]
    stages += [f"AP {told['AP_float32']}", "measuring int8: 12 images", "12/12 "]
    stages += [f"AP {told['AP_int8']}"]
    lines = capsys.readouterr().out.splitlines()
    assert [line[: len(stage)] for line, stage in zip(lines, stages, strict=True)] == stages
    check_quantized(file, told)
    assert told["float_layers"] == [] and (told["images"], told["calibrated_on"]) == (12, 24)
    assert told["AP_float32"] > 0.8  # these are its own boxes
    assert told["AP_int8"] == pytest.approx(measured("onnx", file, model, found), abs=1e-4)
    onnx.write(tmp_path / "detector.onnx", model)
    assert file.stat().st_size < 0.4 * (tmp_path / "detector.onnx").stat().st_size
    done, paths = run_recipe(tmp_path / "exported", [(40, 70), (70, 40)])
    assert done.returncode == 0 and all(path in done.stdout for path in paths)


@pytest.mark.slow
def test_openvino_and_layers_in_float(model, found, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "MOST_LOST", -1.0)  # no choice will do
    written, kept = [], []

    def write(source, file, ranges, layers):
        kept.append(layers)
        result = original(source, file, ranges, layers)
        written.append(file.read_bytes())
        return result

    original = int8._write
    monkeypatch.setattr(int8, "_write", write)
    with pytest.warns(UserWarning, match=r"int8 costs -?0.\d+ AP with the best choice of layers"):
        file, told = exported("openvino", model, found, tmp_path / "exported")
    assert told["AP_int8"] == pytest.approx(measured("openvino", file, model, found), abs=1e-4)
    assert [len(layers) for layers in kept] == [0, 4, 7, 19]
    assert all("head" in layer for layer in kept[2]) and set(kept[1]) < set(kept[2])
    assert not any("res_net" in layer for layer in kept[3])
    assert told["float_layers"] in [sorted(layers) for layers in kept]
    assert b"FakeQuantize" in file.read_bytes()
    for layers, content in zip(kept, written, strict=True):
        (tmp_path / "attempt.onnx").write_bytes(content)
        check_quantized(tmp_path / "attempt.onnx", {"float_layers": sorted(layers)})


@pytest.mark.slow
def test_proposals_of_one_shape(found, tmp_path):
    first = make("rpn_small")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever it costs
        file, told = exported("onnx", first, found, tmp_path / "exported", shape=(96, 128))
    assert {"AR@100_float32", "AR@100_int8"} < set(told)
    x = {"images": np.zeros((1, 96, 128, 3), "uint8"), "image_sizes": np.int32([[64, 64]])}
    assert RUNNERS["onnx"](file)(x)["boxes"].shape[2] == 4
