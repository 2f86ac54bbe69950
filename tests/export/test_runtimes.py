"""Exports for other runtimes, run by those runtimes, give the boxes of `predict`."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import in_order
from untrained import make

from libra_keras import export, models
from libra_keras.cli import main
from libra_keras.data import InputPolicy
from libra_keras.export import folder, onnx
from libra_keras.export.openvino import convert

RECIPE = Path(__file__).parents[2] / "recipes" / "run_onnx.py"
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
# Reads no image through this package, and needs no TensorFlow.
ALONE = """
import runpy, sys
for name in ("tensorflow", "keras", "libra_keras"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def need(*kinds):
    for kind in kinds:
        for name in {PACKAGES[kind], *({"tf2onnx"} if kind != "litert" else ())}:
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")


def onnx_runner(file):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, x), strict=True))


def openvino_runner(file):
    import openvino

    model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = {output.any_name: output for output in model.outputs}

    def run(x):
        found = model(x)
        return {name: np.array(found[output]) for name, output in names.items()}

    return run


def litert_runner(file):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))

    def run(x):
        height, width = x["images"].shape[1:3]
        detect = interpreter.get_signature_runner("portrait" if height > width else "landscape")
        rows = [
            detect(**{name: value[i : i + 1] for name, value in x.items()})
            for i in range(len(x["images"]))
        ]
        return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}

    return run


RUNNERS = {"onnx": onnx_runner, "openvino": openvino_runner, "litert": litert_runner}


def batches(model):
    """Two landscape images, padded and not, and a portrait one."""
    rng = np.random.default_rng(0)
    for *sizes, shape in (((64, 96), (50, 96), (64, 96)), ((96, 60), (96, 64))):
        images = rng.integers(0, 255, (len(sizes), *shape, 3)).astype("uint8")
        x = {"images": images, "image_sizes": np.array(sizes, "int32")}
        if "proposals" in model.INPUTS:
            boxes = [[4, 4, 40, 30], [20, 10, 60, 60], [8, 8, 60, 40], [0, 0, 0, 0]]
            x["proposals"] = np.array([boxes] * len(sizes), "float32")
        yield x


def ordered(found, expected):
    """The same, by `in_order` of every image."""
    columns = [found["scores"], found["boxes"], expected["scores"], expected["boxes"]]
    orders = [in_order(*image, digits=5) for image in zip(*columns, strict=True)]
    return {
        key: np.stack([row[order] for row, order in zip(values, orders, strict=True)])
        if values.ndim > 1
        else values
        for key, values in found.items()
    }


def check(model, run, is_fixed=False):
    """The runtime gives what `predict` gives, for both orientations and batches of other sizes."""
    if not is_fixed:
        nothing = {name: value[:0] for name, value in next(batches(model)).items()}
        found = run(nothing)
        assert set(found) == set(model.OUTPUTS)
        assert {len(values) for values in found.values()} == {0} and found["boxes"].ndim == 3
    for x in batches(model):
        found, expected = run(x), model.predict_on_batch(x)
        assert set(found) == set(model.OUTPUTS) and expected["boxes"].any()
        found = ordered(found, expected)
        for key, values in expected.items():
            exact = values.dtype.kind in "ib"
            limits = {"atol": 0 if exact else 1e-4 if key == "scores" else 0.01, "rtol": 0}
            np.testing.assert_allclose(found[key], values, **limits, err_msg=key)


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory):
    """A function that makes the command export a run, and gives the folder."""

    def export(kind, *options):
        need(kind)
        path = tmp_path_factory.mktemp(kind) / "exported"
        command = ["export", str(run_folder), "--to", str(path), "--format", kind]
        assert main([*command, *options]) == 0
        return path

    return export


def run_recipe(folder, sizes):
    """Runs the program on images of noise of some sizes; returns it and the images' paths."""
    rng, paths = np.random.default_rng(0), []
    for i, size in enumerate(sizes):
        paths.append(str(folder.parent / f"{i}.png"))
        Image.fromarray(rng.integers(0, 255, (*size, 3), "uint8")).save(paths[-1])
    command = [sys.executable, "-c", ALONE, str(RECIPE), str(folder), *paths, "--score", "0.1"]
    return subprocess.run(command, capture_output=True, text=True), paths


def check_lines(model, done, paths):
    """The program has found what the detector does."""
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    for path in paths:
        expected = model.detect(path, score_threshold=0.1)
        mine = [line[1:] for line in lines if line[0] == path]
        numbers = np.array([line[1:] for line in mine], "float32")
        scores, boxes = numbers[:, 0], numbers[:, 1:]
        order = in_order(scores, boxes, expected["scores"], expected["boxes"], digits=2)
        assert [mine[i][0] for i in order] == expected["names"] and mine
        boxes = boxes[order]
        np.testing.assert_allclose(boxes, expected["boxes"], atol=0.06)  # it prints one digit


@pytest.mark.slow
def test_onnx_of_a_trained_detector(served_model, exported):
    folder = exported("onnx")
    check(served_model, onnx_runner(folder / "detector.onnx"))
    note = json.loads((folder / "detector.json").read_text())
    assert note["class_names"] == ["cat"] and note["input_policy"]["long_side"] == 96
    assert note["thresholds"]["score_threshold"] == 0.05
    assert note["shape"] is None and note["needs"]["onnxruntime"]
    done, paths = run_recipe(folder, [(40, 70), (70, 40), (200, 300)])
    assert done.returncode == 0, done.stderr
    check_lines(served_model, done, paths)


@pytest.mark.slow
def test_openvino_of_one_shape(served_model, exported):
    folder = exported("openvino", "--shape", "64x96")
    assert json.loads((folder / "detector.json").read_text())["shape"] == [64, 96]
    x = next(batches(served_model))
    found, expected = openvino_runner(folder / "detector.xml")(x), served_model.predict_on_batch(x)
    found = ordered(found, expected)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.01)
    done, paths = run_recipe(folder, [(40, 70), (70, 40)])
    assert done.returncode == 1
    check_lines(served_model, done, paths[:1])
    assert f"{paths[1]}: the image is 96x55 (height x width) after resizing, more" in done.stderr


@pytest.mark.slow
def test_openvino_of_one_shape_with_attention(tmp_path):
    """Which adds nothing before a detector is trained: its last convolution is 0."""
    need("openvino")
    model = make("libra_faster_rcnn_small", eager=True)
    kernel = model.neck[-1].refiner.conv_out.kernel
    kernel.assign(np.random.default_rng(0).normal(0, 0.3, kernel.shape))
    file = export.export_openvino(model, tmp_path / "exported", shape=(64, 96))
    x = next(batches(model))
    found, expected = openvino_runner(file)(x), model.predict_on_batch(x)
    found = ordered(found, expected)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.01)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)


KINDS = ["libra_faster_rcnn_small", "fast_rcnn_small", "retinanet_small", "rpn_small"]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_onnx_of_every_kind_of_detector(name, tmp_path):
    """By ONNX's operations alone, and OpenVINO reads it."""
    need("onnx", "openvino")
    import onnx as reader

    model, file = make(name, eager=True), tmp_path / "detector.onnx"
    onnx.write(file, model)
    graph = reader.load(file).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds >= {"NonMaxSuppression"} and not kinds & {"Loop", "If"}
    assert ("RoiAlign" in kinds) == hasattr(model, "box_head")
    check_axes(graph)
    convert(file, tmp_path / "detector.xml")
    for run in (onnx_runner(file), openvino_runner(tmp_path / "detector.xml")):
        check(model, run)
        if "proposals" in model.INPUTS:
            found = run({**next(batches(model)), "proposals": np.zeros((2, 0, 4), "float32")})
            assert found["num_detections"].tolist() == [0, 0] and (found["labels"] == -1).all()


def check_axes(graph):
    """They have one name on all tensors."""
    shapes = {
        tensor.name: [
            side.dim_param or side.dim_value for side in tensor.type.tensor_type.shape.dim
        ]
        for tensor in (*graph.input, *graph.output)
    }
    expected = {
        "images": ["batch", "height", "width", 3],
        "image_sizes": ["batch", 2],
        "proposals": ["batch", "proposals", 4],
        "boxes": ["batch", "detections", 4],
        "num_detections": ["batch"],
    }
    assert {"images", "image_sizes", "boxes"} <= set(shapes)
    for name, shape in shapes.items():
        assert shape == expected.get(name, ["batch", "detections"]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_litert_of_every_kind_of_detector(name, tmp_path):
    need("litert")
    model = make(name, eager=True)
    fixed = {"num_proposals": 4} if name == "fast_rcnn_small" else {}
    file = export.export_litert(model, tmp_path / "exported", **fixed)
    check(model, litert_runner(file), is_fixed=True)  # to calls of one image


@pytest.mark.slow
def test_litert_with_as_many_samples_as_cells(tmp_path):
    """The loops of a RoIAlign with `sampling_ratio=0`, whose sizes only the boxes tell."""
    need("litert")
    model = models.faster_rcnn_small(num_classes=2, input_policy=InputPolicy(64, 96))
    model.box_head.roi_align.sampling_ratio, model.run_eagerly = 0, True
    file = export.export_litert(model, tmp_path / "exported")
    check(model, litert_runner(file), is_fixed=True)


@pytest.mark.slow
def test_litert_of_any_number_of_images(tmp_path):
    need("litert")
    from ai_edge_litert.interpreter import Interpreter

    model = models.rpn_small(input_policy=InputPolicy(64, 96))
    model.run_eagerly = True
    file = export.export_litert(model, tmp_path / "exported", batch_size=None)
    detect = Interpreter(str(file)).get_signature_runner("landscape")
    x = next(batches(model))
    np.testing.assert_allclose(detect(**x)["boxes"], model.predict_on_batch(x)["boxes"], atol=0.1)
    found = detect(**{name: value[:0] for name, value in x.items()})
    assert {key: value.shape for key, value in found.items()} == {
        "boxes": (0, 200, 4), "scores": (0, 200), "mask": (0, 200)
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 90), (0, 96), (64,), (64.5, 96)])
def test_shapes_that_no_image_is_padded_to_are_refused(shape, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "MODULES", ())
    with pytest.raises(ValueError, match="`shape` must be a height and a width in multiples of 32"):
        export.export_onnx(models.rpn_small(), tmp_path / "exported", shape=shape)
    assert not any(tmp_path.iterdir())


def test_folder_in_use_is_refused(tmp_path):
    (tmp_path / "detector.onnx").write_text("old")
    with pytest.raises(ValueError, match="is not empty"):
        folder.check_folder(tmp_path, False, ".onnx", ())
    folder.check_folder(tmp_path, True, ".onnx", ())
    with pytest.raises(ValueError, match=r"other than an earlier export of \.xml"):
        folder.check_folder(tmp_path, True, ".xml", ())
    for name in ("photo.jpg", "detector.jpg", "detector.engine", "detector.bin"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(ValueError, match=r"no export of \.onnx"):
            folder.check_folder(tmp_path, True, ".onnx", ())
        (tmp_path / name).unlink()
    for name in ("detector.xml", "detector.bin", "detector.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "detector.onnx").unlink()
    folder.check_folder(tmp_path, True, ".xml", ())


def test_two_exports_at_once(tmp_path):
    path, model = tmp_path / "exported", models.rpn_small()
    with folder.writing(path, model) as files:
        files.with_suffix(".onnx").write_text("first")
        with pytest.raises(ValueError, match="Another process is writing to .*exported"):
            with folder.writing(path, model):
                pass
    assert [file.name for file in tmp_path.iterdir()] == ["exported"]
    assert (path / "detector.onnx").read_text() == "first"


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "MODULES", ("not_there",))
    with pytest.raises(ImportError, match=r"pip install 'libra-keras\[onnx\]'"):
        export.export_onnx(None, tmp_path / "exported")


def test_other_precisions_are_refused(tmp_path):
    options = export.ExportOptions(precision="bfloat16")
    with pytest.raises(ValueError, match="float32"):
        export.export_litert(models.rpn_small(), tmp_path / "exported", options=options)
