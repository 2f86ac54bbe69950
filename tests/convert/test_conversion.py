import json
from types import SimpleNamespace

import numpy as np
import pytest
from convert.golden_checkpoints import checkpoint
from reference_detector import rgb_batch

from libra_keras import runs
from libra_keras.convert import convert, load, read_record
from libra_keras.convert.conversion import write_detector
from libra_keras.files import atomic


@pytest.fixture(scope="module")
def source(reference):
    return checkpoint(reference("libra_frcnn_r18b16_weights.npz"), "tiny.pth", sha256="ab" * 32)


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    return convert(source, folder), folder


def test_writes_what_the_verbs_read(reference, converted):
    conversion, folder = converted
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["conversion.json", "last.weights.h5", "model.json"]
    image = reference("libra_frcnn_r18b16_features.npz")["image_bgr_u8"]
    x = rgb_batch([image], 256, 320)
    ours, reloaded = conversion.model(x), runs.open(folder).model(x)
    assert int(ours["num_detections"][0]) > 0
    for key in conversion.model.OUTPUTS:
        np.testing.assert_array_equal(ours[key], reloaded[key])


def test_the_record_says_where_it_came_from(converted):
    conversion, folder = converted
    record = read_record(folder)
    assert record == json.loads(json.dumps(conversion.record))  # tuples are lists in JSON
    assert (record["source"], record["sha256"]) == ("tiny.pth", "ab" * 32)
    assert record["taken_for"] == "mmdetection 2.x or 3.x" and record["model"] is None
    assert record["class_names"][:2] == ["person", "bicycle"]
    assert record["preprocessing"]["input_policy"]["short_side"] == 800
    assert record["preprocessing"]["normalization"]["channel_order"] == "rgb"
    summary = conversion.summary()
    assert "80 classes: person, bicycle, car" in summary and "num_batches_tracked" in summary


def test_nothing_is_lost_and_nothing_is_half_written(reference, source, converted, tmp_path):
    _, folder = converted
    with pytest.raises(ValueError, match="is not empty. Choose another .* with --overwrite"):
        convert(source, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="contains something other than an earlier conversion"):
        convert(source, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    weights = reference("libra_frcnn_r18b16_weights.npz")
    broken = checkpoint({k: v for k, v in weights.items() if "fc_reg.bias" not in k})
    with pytest.raises(ValueError, match="missing: roi_head.bbox_head.fc_reg.bias"):
        convert(broken, tmp_path / "new")
    with pytest.raises(ValueError, match="missing: roi_head.bbox_head.fc_reg.bias"):
        convert(broken, folder, overwrite=True)
    assert read_record(folder)["source"] == "tiny.pth"  # the earlier one is whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_overwrites_an_earlier_conversion(source, tmp_path):
    convert(source, tmp_path / "a")
    convert(source, tmp_path / "a", overwrite=True, class_names=[f"c{i}" for i in range(80)])
    assert read_record(tmp_path / "a")["class_names"][79] == "c79"


def test_files_of_others_beside_a_conversion_stay(reference, source, tmp_path):
    convert(source, tmp_path / "a")
    (tmp_path / "a" / "found.png").write_text("boxes")
    with pytest.raises(ValueError, match="holds found.png, which no conversion has written"):
        convert(source, tmp_path / "a", overwrite=True)
    backbone = checkpoint(reference("backbone_r18_b8_weights.npz"))
    (tmp_path / "r18.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="r18.json exists already"):
        convert(backbone, tmp_path / "r18.weights.h5")
    with pytest.raises(ValueError, match="r18.json is no record of a conversion"):
        convert(backbone, tmp_path / "r18.weights.h5", overwrite=True)
    assert (tmp_path / "r18.json").read_text() == '{"mine": 1}'
    assert not (tmp_path / "r18.weights.h5").exists()
    run = tmp_path / "last.weights.h5"  # of a detector that was trained
    run.write_text("trained")
    with pytest.raises(ValueError, match=r"is no conversion \(no last.json\), and is not overwr"):
        convert(backbone, run, overwrite=True)
    assert run.read_text() == "trained" and not (tmp_path / "last.json").exists()


def test_a_kill_leaves_no_weights_beside_the_record_of_others(reference, tmp_path, monkeypatch):
    backbone = checkpoint(reference("backbone_r18_b8_weights.npz"))
    file = tmp_path / "r18.weights.h5"
    convert(backbone, file)
    record = (tmp_path / "r18.json").read_text()
    convert(backbone, file, overwrite=True)
    assert (tmp_path / "r18.json").read_text() == record

    def kill(path, values):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "write_json", kill)
    with pytest.raises(KeyboardInterrupt):
        convert(backbone, file, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r18.weights.h5"]


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({"backbone.body.conv1.weight": None}, {"era": "1.x"}, "era .* of torchvision"),
        (
            {"backbone.body.conv1.weight": None},
            {"backbone_style": "caffe"},
            "backbone style .* of torchvision",
        ),
        (
            {"conv1.weight": None, "layer1.0.conv1.weight": None},
            {"class_names": ["cat"]},
            "class names .* of a backbone",
        ),
    ],
)
def test_options_without_effect_are_refused(tensors, options, message):
    with pytest.raises(ValueError, match=f"the {message}; omit that option"):
        load(checkpoint(tensors), **options)


def test_options_for_keras_applications(tmp_path):
    with pytest.raises(ValueError, match="epsilon cannot be chosen for a file of keras.appl"):
        load(tmp_path / "r50.h5", epsilon=1e-3)


def test_class_names_must_be_as_many_as_classes(source, tmp_path):
    with pytest.raises(ValueError, match="one name for each of 80 classes. Received: 2 names"):
        convert(source, tmp_path / "a", class_names=["cat", "dog"])
    assert list(tmp_path.iterdir()) == []


def test_the_kind_decides_what_is_written(reference, source, tmp_path):
    with pytest.raises(ValueError, match="a detector must be written to a folder"):
        convert(source, tmp_path / "detector.weights.h5")
    backbone = checkpoint(reference("backbone_r18_b8_weights.npz"))
    with pytest.raises(ValueError, match="a file NAME.weights.h5"):
        convert(backbone, tmp_path / "backbone")
    assert list(tmp_path.iterdir()) == []


def test_another_network():
    with pytest.raises(
        ValueError, match=r"vit.pth cannot be converted.*called blocks.0.attn, head"
    ):
        convert(checkpoint({"blocks.0.attn": None, "head": None}, "vit.pth"), "nowhere")


def test_two_conversions_at_once(converted, tmp_path, monkeypatch):
    conversion, folder = converted[0], tmp_path / "run"
    write_json = atomic.write_json

    def interrupted(path, values):
        with pytest.raises(ValueError, match="Another process is writing to .*run"):
            write_detector(conversion.model, {}, folder)
        write_json(path, values)

    monkeypatch.setattr(atomic, "write_json", interrupted)
    write_detector(conversion.model, conversion.record, folder)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    assert read_record(folder)["source"] == "tiny.pth"


def test_a_full_disk_is_an_error_before_anything_is_written(converted, tmp_path, monkeypatch):
    """HDF5 would end the process."""
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    monkeypatch.setattr(type(converted[0].model), "save_weights", None)
    with pytest.raises(OSError, match="No space left on device"):
        write_detector(converted[0].model, {}, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_proposals_have_no_names(reference):
    weights = reference("libra_frcnn_r18b16_weights.npz")
    network = {k: v for k, v in weights.items() if not k.startswith("roi_head.")}
    with pytest.raises(ValueError, match="it proposes regions and knows no classes"):
        load(checkpoint(network), class_names=["cat"])
