"""Exports for other runtimes, run by those runtimes, give the boxes of `predict`."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import make

from libra_keras import export, models
from libra_keras.cli import main
from libra_keras.data import InputPolicy
from libra_keras.export import folder, onnx, openvino

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


def check(model, run, is_fixed=False):
    """The runtime gives what `predict` gives, for both orientations and batches of other sizes."""
    if not is_fixed:
        nothing = {name: value[:0] for name, value in next(batches(model)).items()}
        found = run(nothing)
        assert set(found) - {"unfinished"} == set(model.OUTPUTS)
        assert {len(values) for values in found.values()} == {0} and found["boxes"].ndim == 3
    for x in batches(model):
        found, expected = run(x), model.predict_on_batch(x)
        assert not np.any(found.pop("unfinished", 0))
        assert set(found) == set(model.OUTPUTS) and expected["boxes"].any()
        for key, values in expected.items():
            exact = values.dtype.kind in "ib"
            limits = {"atol": 0 if exact else 1e-4 if key == "scores" else 0.1, "rtol": 0}
            np.testing.assert_allclose(found[key], values, **limits, err_msg=key)


@pytest.fixture(scope="module")
def onnx_folder(run_folder, tmp_path_factory):
    need("onnx")
    path = tmp_path_factory.mktemp("onnx") / "exported"
    assert main(["export", str(run_folder), "--to", str(path), "--format", "onnx"]) == 0
    return path


@pytest.mark.slow
def test_onnx_of_a_trained_detector(served_model, onnx_folder):
    check(served_model, onnx_runner(onnx_folder / "detector.onnx"))
    note = json.loads((onnx_folder / "detector.json").read_text())
    assert note["class_names"] == ["cat"] and note["input_policy"]["long_side"] == 96
    assert note["thresholds"]["score_threshold"] == 0.05


@pytest.mark.slow
def test_recipe_without_keras(served_model, onnx_folder, tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i, size in enumerate([(40, 70), (70, 40), (200, 300)]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 255, (*size, 3), "uint8")).save(paths[-1])
    command = [sys.executable, "-c", ALONE, RECIPE, onnx_folder, *paths, "--score", "0.1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    for path in paths:
        expected = served_model.detect(str(path), score_threshold=0.1)
        mine = [line[1:] for line in lines if line[0] == str(path)]
        assert [line[0] for line in mine] == expected["names"] and mine
        boxes = np.array([line[2:] for line in mine], "float32")
        np.testing.assert_allclose(boxes, expected["boxes"], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("onnx", "fast_rcnn_small"),
        ("openvino", "libra_faster_rcnn_small"),
        ("litert", "libra_faster_rcnn_small"),
        ("litert", "retinanet_small"),
        ("litert", "rpn_small"),
        ("litert", "fast_rcnn_small"),
    ],
)
def test_every_kind_of_detector(kind, name, tmp_path):
    need(kind)
    options = {} if name == "rpn_small" else {"num_classes": 2}
    model = getattr(models, name)(input_policy=InputPolicy(64, 96), **options)
    if name == "retinanet_small":
        bias = model.head.class_logits.bias  # untrained, it would find nothing
        bias.assign(np.zeros(bias.shape))
    fixed = {"num_proposals": 4} if (kind, name) == ("litert", "fast_rcnn_small") else {}
    file = getattr(export, f"export_{kind}")(model, tmp_path / "exported", **fixed)
    run = RUNNERS[kind](file)
    check(model, run, is_fixed=kind == "litert")  # to calls of one image
    if (kind, name) == ("onnx", "fast_rcnn_small"):
        [x, *_] = batches(model)
        found = run({**x, "proposals": np.zeros((2, 0, 4), "float32")})
        assert found["num_detections"].tolist() == [0, 0] and (found["labels"] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_as_many_samples_as_cells(kind, tmp_path):
    """The loops of a RoIAlign with `sampling_ratio=0`, whose sizes only the boxes tell."""
    need(kind)
    model = models.faster_rcnn_small(num_classes=2, input_policy=InputPolicy(64, 96))
    model.box_head.roi_align.sampling_ratio = 0
    file = getattr(export, f"export_{kind}")(model, tmp_path / "exported")
    check(model, RUNNERS[kind](file), is_fixed=kind == "litert")


@pytest.mark.slow
def test_litert_of_any_number_of_images(tmp_path):
    need("litert")
    from ai_edge_litert.interpreter import Interpreter

    model = models.rpn_small(input_policy=InputPolicy(64, 96))
    file = export.export_litert(model, tmp_path / "exported", batch_size=None)
    detect = Interpreter(str(file)).get_signature_runner("landscape")
    x = next(batches(model))
    np.testing.assert_allclose(detect(**x)["boxes"], model.predict_on_batch(x)["boxes"], atol=0.1)
    found = detect(**{name: value[:0] for name, value in x.items()})
    assert {key: value.shape for key, value in found.items()} == {
        "boxes": (0, 200, 4), "scores": (0, 200), "mask": (0, 200)
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast_rcnn_small", "rpn_small"])
def test_axes_of_onnx_have_one_name_on_all_tensors(name, tmp_path):
    need("onnx")
    import onnxruntime

    onnx.write(tmp_path / "detector.onnx", make(name))
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    inputs, outputs = (
        {tensor.name: tensor.shape for tensor in tensors}
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    assert inputs["images"] == ["batch", "height", "width", 3]
    assert inputs["image_sizes"] == ["batch", 2]
    if name == "fast_rcnn_small":
        assert inputs["proposals"] == ["batch", "proposals", 4]
        assert outputs["num_detections"] == ["batch"]
    assert outputs["boxes"] == ["batch", "detections", 4]
    assert outputs["scores"] == ["batch", "detections"]


def test_openvino_refuses_as_many_samples_as_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "MODULES", ())
    model = models.faster_rcnn_small(num_classes=2, input_policy=InputPolicy(64, 96))
    model.box_head.roi_align.sampling_ratio = 0
    with pytest.raises(ValueError, match="OpenVINO .* sampling_ratio=0 in the layer 'multilevel"):
        export.export_openvino(model, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_folder_in_use_is_refused(tmp_path):
    (tmp_path / "detector.onnx").write_text("old")
    with pytest.raises(ValueError, match="is not empty"):
        folder.check_folder(tmp_path, False, ".onnx", ())
    folder.check_folder(tmp_path, True, ".onnx", ())
    with pytest.raises(ValueError, match=r"no export of \.xml"):
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
