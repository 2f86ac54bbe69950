"""Published detectors by name: fetched, converted once, kept; the same as `convert` gives."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from convert.published_files import narrow_detector, publish
from file_server import file_server
from safetensors.numpy import save

from libra_keras import models, runs
from libra_keras.convert import Conversion, convert
from libra_keras.convert.published import PUBLISHED, check_network
from libra_keras.models import FasterRCNN, RetinaNet

NAME = "libra_faster_rcnn_r50_fpn_1x_coco"


@pytest.fixture(scope="module")
def content():
    return save(narrow_detector())  # a file is read by its bytes, whatever its suffix


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LIBRA_KERAS_WEIGHTS", raising=False)
    return tmp_path / "libra_keras"


def seen(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".turn."))


def assert_same(ours, theirs):
    names = r'"name": "\w+"'  # with the numbers that Keras gives to layers
    assert re.sub(names, "", ours.to_json()) == re.sub(names, "", theirs.to_json())
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
def test_a_name_gives_what_convert_gives(home, content, monkeypatch, capsys):
    with file_server() as server:
        file = publish(monkeypatch, NAME, content, server.address)
        server.files[file] = content
        with pytest.raises(
            ValueError, match=f"{NAME} is a FasterRCNN; load it with FasterRCNN.from_pre"
        ):
            RetinaNet.from_preset(NAME)
        assert server.asked == []
        detector = FasterRCNN.from_preset(NAME)
        assert server.asked == [file]
    assert f"Converted to {home / NAME}" in capsys.readouterr().out
    assert seen(home) == [NAME]  # the file has done its service
    (home.parent / file).write_bytes(content)
    conversion = convert(home.parent / file, home.parent / "converted")
    assert_same(detector, conversion.model)
    assert len(detector.class_names) == 80 and detector.input_policy.short_side == 800

    assert runs.open(NAME).folder == home / NAME  # without a server


def test_a_file_of_the_user_stays_and_half_a_conversion_does_not(
    home, content, tmp_path, monkeypatch
):
    file = publish(monkeypatch, NAME, content)
    (home / NAME).mkdir(parents=True)
    (home / NAME / "conversion.json").write_text('{"sha256": "0"}')  # of another file
    (home / f".unfinished.{NAME}").mkdir()  # of a process that was killed
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("LIBRA_KERAS_WEIGHTS", str(own))
    with pytest.raises(ValueError, match=f"there is no {own / file}"):
        runs.open(NAME)
    (own / file).write_bytes(content)
    assert PUBLISHED[NAME].is_downloaded and not PUBLISHED[NAME].is_converted
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")  # of this process; what is kept is for all
    try:
        runs.open(NAME)
    finally:
        keras.config.set_dtype_policy(policy)
    assert "bfloat16" not in (home / NAME / "model.json").read_text()
    assert PUBLISHED[NAME].is_converted and seen(own) == [file] and seen(home) == [NAME]
    assert seen(home / NAME) == ["conversion.json", "last.weights.h5", "model.json"]


def test_a_file_of_another_network_is_refused():
    entry, small = PUBLISHED[NAME], models.retinanet_small(2)
    with pytest.raises(ValueError, match=f"3afee3a9.pth holds a RetinaNet, but {NAME} is a libra_"):
        check_network(entry, Conversion(small, {"model": None}))
    with pytest.raises(ValueError, match="holds a faster_rcnn_resnet50, but"):
        check_network(entry, Conversion(small, {"model": "faster_rcnn_resnet50"}))
    check_network(entry, Conversion(small, {"model": entry.model}))


def test_the_table():
    for name, entry in PUBLISHED.items():
        assert entry.name == name and entry.file.name.startswith(name.removesuffix("_coco"))
        assert re.fullmatch("[0-9a-f]{8}", entry.file.digits), entry.address
        assert entry.address.startswith("https://") and entry.address.endswith(".pth")
        assert issubclass(entry.kind, keras.Model) and entry.model in models.list()
        assert 30 < entry.score < 60
    assert PUBLISHED["rpn_r50_fpn_1x_coco"].metric == "AR@1000"
    readme = (Path(__file__).parents[2] / "libra_keras/convert/README.md").read_text()
    for entry in PUBLISHED.values():
        listed = re.search(rf"\| `{entry.file.name}`.* \| (?:AR@1000 )?([\d.]+) \|", readme)
        assert listed is None or float(listed[1]) == entry.score
