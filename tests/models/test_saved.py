"""Detectors that are saved and loaded by users, with other classes too."""

import shutil

import numpy as np
import pytest

from libra_keras import runs
from libra_keras.models import (
    FasterRCNN,
    RegionProposalNetwork,
    RetinaNet,
    retinanet_small,
    rpn_small,
)
from libra_keras.models.detector import Detector
from libra_keras.models.saved import write_folder

NAMES = ["cat", "dog"]


@pytest.fixture(scope="module")
def detector():
    detector = retinanet_small(2, class_names=NAMES)
    detector.compile("adam")
    return detector


@pytest.fixture(scope="module")
def preset(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "pets"
    detector.save_to_preset(folder)
    return folder


def test_what_was_saved_is_loaded_everywhere(detector, preset):
    assert sorted(path.name for path in preset.iterdir()) == ["last.weights.h5", "model.json"]
    assert "Adam" not in (preset / "model.json").read_text()
    for loaded in (Detector.from_preset(str(preset)), runs.open(preset).model):
        assert type(loaded) is RetinaNet and loaded.class_names == NAMES
        for mine, other in zip(loaded.get_weights(), detector.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_other_classes_get_new_last_layers(detector, preset):
    own = RetinaNet.from_preset(preset, num_classes=2, class_names=NAMES)
    three = RetinaNet.from_preset(preset, num_classes=3)
    assert (own.class_names, three.class_names, three.num_classes) == (NAMES, None, 3)
    np.testing.assert_array_equal(*[m.head.class_logits.kernel for m in (own, detector)])
    for model in (own, three):
        np.testing.assert_array_equal(*[m.head.box_deltas.kernel for m in (model, detector)])


def test_what_does_not_fit_is_refused(preset, tmp_path):
    with pytest.raises(ValueError, match="pets is a RetinaNet; load it with RetinaNet.from_preset"):
        FasterRCNN.from_preset(preset)
    with pytest.raises(ValueError, match="one name for each of 3 classes"):
        RetinaNet.from_preset(preset, num_classes=3, class_names=NAMES)
    write_folder(rpn_small(), tmp_path / "rpn")
    with pytest.raises(ValueError, match="knows no classes. Omit `num_classes`"):
        RegionProposalNetwork.from_preset(tmp_path / "rpn", num_classes=3)


def test_a_name_that_is_mistyped_is_answered_by_the_nearest():
    said = "there is no libra_retinanet_r50. A det.*, such as libra_retinanet_r50_fpn_1x_coco"
    with pytest.raises(ValueError, match=said):
        RetinaNet.from_preset("libra_retinanet_r50")


def test_only_a_preset_is_replaced_and_only_if_asked(detector, preset, tmp_path):
    folder = shutil.copytree(preset, tmp_path / "pets")
    with pytest.raises(ValueError, match="is not empty"):
        detector.save_to_preset(folder)
    detector.save_to_preset(folder, overwrite=True)
    (folder / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="holds photo.jpg, which no preset has written"):
        detector.save_to_preset(folder, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        detector.save_to_preset(folder / "photo.jpg")
