"""The table of runtimes: its figures by hand, whose images they are of, and rows that fail."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from voc_folder import write_voc

from libra_keras import data
from libra_keras.data.examples import coco_annotations

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"
# Stands in for the process of a row: its calls take as many seconds as the batch has images.
SERVING = """
import sys
if sys.argv[1] == "OpenVINO":
    print("\\nerror: RuntimeError: no such layer")
    sys.exit(1)
print("ready", flush=True)
for line in sys.stdin:
    print(float(line) * (2 if sys.argv[1] == "onnxruntime" else 1), flush=True)
"""


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """Recipes import each other, as `python recipes/benchmarks/<name>.py` does."""
    monkeypatch.syspath_prepend(str(FOLDER))


def given(*words):
    import serving_speed

    return serving_speed.parser().parse_args([*map(str, words)])


def test_rows_and_their_files():
    from serving_runtimes import Row, rows_of

    rows = rows_of(given("--only", "OpenVINO", "LiteRT", "--beside", "python"))
    assert [(row.precision, row.shape) for row in rows] == [
        *(("float32", "free"), ("float32", "fixed")),
        *(("bfloat16", "free"), ("bfloat16", "fixed")),  # a setting: the files are those above
        *(("int8", "free"), ("int8", "fixed")),
        *(("float32", "two fixed"), ("float32", "free")),
    ]
    folders = ["openvino-float32-free", "openvino-float32-fixed"] * 2
    folders += ["openvino-int8-free", "openvino-int8-fixed", "litert-float32-two-fixed"]
    assert [row.folder for row in rows if row.file] == folders
    assert Row("SavedModel, prepared", "bfloat16").folder == "saved_model-bfloat16-free"
    assert rows_of(given("--only", "LiteRT", "--precisions", "int8")) == []


def test_times_by_hand():
    from serving_table import times

    one, batch = {"seconds": [3, 1, 2], "beside": [4, 1, 8]}, {"seconds": [6.0, 5.0]}
    found = times(one, batch, {"seconds": [10.0, 20.0]})
    assert found["one image"] == {"figure": 2, "ratio": 0.5, **one}  # medians 2 and 4
    assert found["8 images"] == {"figure": 5, "ratio": 0.5, **batch}  # best calls 5 and 10
    assert times(one, {"error": "no room"}, batch)["8 images"] == {"error": "no room"}
    assert times(one, batch, {"error": "no room"})["8 images"]["ratio"] is None
    assert times({}, {"seconds": []}, batch) == {"one image": {}, "8 images": {"seconds": []}}


def test_what_is_lost_on_the_same_images():
    from serving_accuracy import compared

    first = {"all": {"images": 9, "AP": 0.6, "resampled": [0.6] * 101}}
    first["fitting"] = {"images": 4, "AP": 0.5, "resampled": [0.5] * 101}
    # Losses on resampled images from 0 to .1 in steps of .001: 2.5 % of them are below .0025.
    own = {"images": 4, "AP": 0.47, "resampled": np.linspace(0.5, 0.4, 101)}
    found = compared({"fitting": own}, first)
    assert found["images"] == 4 and found["lost"] == pytest.approx(0.03)
    np.testing.assert_allclose(found["interval"], [0.0025, 0.0975])
    assert compared({"fitting": own}, {"all": first["all"]}) == {"images": 4, "AP": 0.47}
    assert compared({"fitting": own}, None) == {"images": 4, "AP": 0.47}


def test_the_table():
    from serving_table import finite, markdown

    keras = {"runtime": "Keras", "precision": "float32", "shape": "free"}
    keras["times"] = {
        "one image": {"figure": 0.5, "ratio": 1.0},
        "8 images": {"figure": 4.0, "ratio": 1.0},
    }
    keras["accuracy"] = {"images": 9, "AP": 0.6949}
    untimed = {**keras, "times": {"one image": {}, "8 images": {"seconds": []}}}
    quick = {"runtime": "OpenVINO", "precision": "int8", "shape": "fixed", "megabytes": 2.04}
    quick["int8"] = {"float_layers": ["a", "b"]}
    quick["times"] = {"one image": {"figure": 0.125, "ratio": 0.25}, "8 images": {"error": "full"}}
    quick["accuracy"] = {"images": 4, "AP": 0.69, "lost": -0.00104, "interval": [-0.003, 0.002]}
    result = {
        "detector": "small",
        "size": "64x96",
        "padded": "64x64",
        "weights": 8e6,
        "threads": 2,
        "runs": 7,
    }
    result |= {"turns": 2, "load": [0.125, 1, 1], "rows": [keras, untimed, quick]}
    result |= {"machine": {"cpu": "A CPU", "flags": ["amx_int8"], "cores": 2}}
    result |= {"versions": {"keras": "3"}, "data": "shapes/val", "images": 9, "calibrated_on": "x"}
    title, _, head, line, *rows = markdown(result).splitlines()
    assert "small at 64x96, weights 8.0 MB; 2 threads on A CPU (amx_int8), load 0.12" in title
    assert "on those that fit (padded from 64x64)" in title
    assert head.count("|") == line.count("|") == 11
    assert rows == [
        "| Keras | float32 | free | 0.500 s | 1.00 | 4.00 s | 1.00 |  | 0.6949 |  |",
        "| Keras | float32 | free |  |  |  |  |  | 0.6949 |  |",
        "| OpenVINO | int8, 2 layers in float | fixed | 0.125 s | 0.25 | failed |  | 2.0 MB "
        "| 0.6900 (4 images) | -0.0010 [-0.0030, 0.0020] |",
        *("", "Failed:", "", "- OpenVINO, int8, fixed: 8 images: full"),
    ]
    assert finite({"AP": [float("nan"), 1.0], "name": "a"}) == {"AP": [None, 1.0], "name": "a"}


def test_a_row_that_fails_is_named_and_the_others_go_on(monkeypatch, capsys):
    import serving_timing
    from serving_runtimes import rows_of

    def command(options, job, row):
        return [sys.executable, "-c", SERVING, row.runtime]

    monkeypatch.setattr(serving_timing, "command", command)
    only = ["--only", "Keras, eager", "OpenVINO", "onnxruntime", "--precisions", "float32"]
    options = given(*only, "--runs", 2, "--turns", 1)
    rows = [row for row in rows_of(options) if row.shape == "free"]
    found = serving_timing.latencies(rows, options)
    assert found[rows[0]]["seconds"] == [1, 1, 1, 1]  # two alone, and one beside each of two
    assert found[rows[1]] == {"error": "RuntimeError: no such layer"}
    assert (found[rows[2]]["seconds"], found[rows[2]]["beside"]) == ([2, 2], [1, 1])
    assert "OpenVINO, float32, free: RuntimeError: no such layer" in capsys.readouterr().out
    with pytest.raises(serving_timing.Failed, match="no such layer"):
        serving_timing.latencies(rows[1:], options)
    found = serving_timing.throughputs(rows, options)
    assert found[rows[0]] == {"seconds": [8, 8]} and "error" in found[rows[1]]


@pytest.fixture
def two_photographs():
    """A landscape and a portrait, with an object each in the upper left quarter."""
    examples = [
        data.Example(
            *(number, f"{number}.jpg", height, width),
            *(np.float32([[0, 0, width / 2, height / 2]]), np.int32([0]), np.array([False])),
        )
        for number, (height, width) in enumerate([(64, 96), (96, 64)], 1)
    ]

    def read(example):
        return np.full((example.height, example.width, 3), 9, "uint8")

    annotations = coco_annotations(examples, ("cat",))
    return data.DetectionData("two", ("cat",), (1,), examples, annotations, read)


@pytest.mark.parametrize("shape", ["free", "fixed"])
def test_images_that_do_not_fit_are_left_out(two_photographs, tmp_path, monkeypatch, shape):
    import serving_accuracy
    from serving_runtimes import Row

    shapes = []

    def detect(x):
        shapes.append(x["images"].shape)
        assert x["images"].any(axis=-1).sum() == 32 * 48  # the rest is padding
        height, width = x["image_sizes"][0]
        box = [0, 0, width / 2, height / 2]
        return {"boxes": np.array([[box]]), "scores": np.array([[0.5]]), "labels": np.array([[0]])}

    policy = data.InputPolicy(32, 48).get_config()
    note = {"input_policy": policy, "class_names": ["cat"]}
    (tmp_path / serving_accuracy.NOTE).write_text(json.dumps(note))
    monkeypatch.setattr(serving_accuracy, "measuring", lambda _: two_photographs)
    monkeypatch.setattr(serving_accuracy, "load", lambda *_: detect)
    monkeypatch.setattr(serving_accuracy, "RESAMPLES", 5)
    options = argparse.Namespace(files=tmp_path, size="32x64")
    found = serving_accuracy.measure(Row("OpenVINO", "float32", shape), options)
    counts = {"free": {"all": 2, "fitting": 1}, "fixed": {"fitting": 1}}[shape]
    assert {name: part["images"] for name, part in found.items()} == counts
    for part in found.values():
        np.testing.assert_allclose([part["AP"], *part["resampled"]], 1)
    assert shapes == {"free": [(1, 32, 64, 3), (1, 64, 32, 3)], "fixed": [(1, 32, 64, 3)]}[shape]


def test_images_that_calibrate_are_not_measured_on(two_photographs):
    import serving_accuracy

    one, other = two_photographs.subset([0]), two_photographs.subset([1])
    serving_accuracy._check_apart(one, other)
    with pytest.raises(ValueError, match="1 images would calibrate .* such as 2.jpg"):
        serving_accuracy._check_apart(two_photographs, other)


@pytest.mark.slow
def test_a_run_in_int8(run_folder, tmp_path):
    for name in ("onnxruntime", "openvino", "tf2onnx"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    boxes = [(5, 5, 60, 40)], [(30, 10, 90, 60)]
    folder = write_voc(tmp_path / "voc", size=(96, 64), train=boxes, val=boxes)
    words = ["--run", run_folder, "--data", folder, "--runs", 1, "--turns", 0, "--corners", "edges"]
    words += ["--only", "Keras, predict_on_batch", "OpenVINO", "--precisions", "float32", "int8"]
    words += ["--to", tmp_path / "table.json", "--beside", sys.executable]  # without torchvision
    command = [sys.executable, FOLDER / "serving_speed.py", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "table.json").read_text())
    assert (result["size"], result["images"], result["data"]) == ("64x96", 2, "voc/val")
    assert result["detector"] == "libra_faster_rcnn_small"
    *rows, beside = result["rows"]
    assert "error" in beside["times"]["one image"] and "torchvision" in done.stdout
    kinds = [(row["precision"], row["shape"]) for row in rows]
    assert kinds[1:] == [(p, s) for p in ("float32", "int8") for s in ("free", "fixed")]
    for row in rows:
        one = row["times"]["one image"]
        assert one["figure"] > 0 and one["ratio"] > 0
        assert row["accuracy"]["images"] == 2
    assert abs(rows[1]["accuracy"]["lost"]) < 1e-4  # float32 by another runtime
    assert rows[3]["megabytes"] < 0.6 * rows[1]["megabytes"]  # half of a small one is its graph
    assert rows[3]["int8"]["calibrated_on"] + rows[3]["int8"]["images"] == 2
