"""The data of a run: VOC's AP, proposals from files, augmentation, and the room of a cache."""

import collections
import dataclasses
import shutil

import keras
import numpy as np
import pytest
from voc_folder import write_voc

from libra_keras import data, models
from libra_keras.data.batches import TrainingSource
from libra_keras.data.image_cache import SPARE
from libra_keras.runs import DataConfig, TrainConfig
from libra_keras.runs.inputs import (
    add_given,
    augmentation_of,
    batch_options,
    load_both,
    tell_cache,
    wants_voc,
)


def test_data_in_vocs_form_have_its_ap(tmp_path):
    folder = str(write_voc(tmp_path / "voc", val=[[(5, 5, 40, 30)]]))
    expected = {folder: True, "shapes": False, "tfds:voc/2012": True, "tfds:coco/2017": False}
    for source, is_voc in expected.items():
        assert wants_voc(DataConfig(source)) == is_voc
        assert wants_voc(DataConfig(source, voc=True))


def test_classes_of_both_splits_are_matched_by_name(capsys):
    """Tools give the same classes other ids in each split, or leave out those without a box."""
    train = data.shapes(2)
    names = train.class_names
    part = dataclasses.replace(train, name="part", class_names=names[:2][::-1])
    assert load_both(DataConfig(), train, part) == (train, part)
    assert "part has 2 of the 6 classes to learn" in capsys.readouterr().out
    other = dataclasses.replace(train, name="other", class_names=(*names[:5], "pear"))
    with pytest.raises(ValueError, match="does not know 1 of the 6 classes of other: pear"):
        load_both(DataConfig(), train, other)


def test_images_to_learn_from_and_to_measure_on_are_told(tmp_path, capsys):
    folder, box = tmp_path / "voc", [(5, 5, 40, 30)]
    write_voc(folder, train=[box, box], val=[box])
    (tmp_path / "link").symlink_to(folder)
    load_both(DataConfig(str(folder)))
    load_both(DataConfig(val_split="train"))  # drawn scenes are no files
    assert capsys.readouterr().err == ""
    (folder / "ImageSets/Main/val.txt").write_text("image_1\nimage_2")
    told = "such as image_1.png: numbers measured on them say nothing about other images\n"
    warning = f"Warning: 1 of the 2 images to measure on are also trained on, {told}"
    for val in (None, data.voc(tmp_path / "link", "val")):
        load_both(DataConfig(str(folder)), val=val)
        assert capsys.readouterr().err == warning
    load_both(DataConfig(str(folder), val_split="train"))
    assert capsys.readouterr().err.startswith("Note: 2 of the 2 images to measure on are also")


def test_proposals_go_to_fast_rcnn_only(tmp_path):
    scenes = data.shapes(1)
    own = [
        {"image_id": e.image_id, "boxes": e.boxes, "scores": np.ones(len(e.boxes))}
        for e in scenes.examples
    ]
    data.write_proposals(tmp_path / "a.npz", own)
    fast, other = models.fast_rcnn_small(6), keras.Sequential()
    given = add_given(scenes, tmp_path / "a.npz", fast)
    assert given.max_proposals == scenes.max_boxes
    assert add_given(given, None, fast) is given
    assert add_given(scenes, None, other) is scenes
    with pytest.raises(ValueError, match="requires --val FILE.*shapes/train.*libra-keras propose"):
        add_given(scenes, None, fast, "--val")
    with pytest.raises(ValueError, match="--val is only for fast_rcnn models; a Sequential"):
        add_given(scenes, tmp_path / "a.npz", other, "--val")


def test_options_of_an_augmentation():
    policy = data.InputPolicy(320, 320)
    assert augmentation_of(DataConfig(), policy) == data.Augmentation()
    assert augmentation_of(DataConfig(augment="default"), policy).short_sides == (256, 288, 320)
    own = DataConfig(
        augment="strong", short_sides=(160, 320), vertical_flip=0.5, quarter_turns=True
    )
    expected = dataclasses.replace(
        data.Augmentation.preset("strong"),
        short_sides=(160, 320),
        vertical_flip=0.5,
        quarter_turns=1.0,
    )
    assert augmentation_of(own, policy) == expected
    options = batch_options(TrainConfig(data=own), policy)
    assert options["augment"] == expected and options["flip"] == 0.5


@pytest.mark.usefixtures("roomy_disk")
def test_the_room_that_is_missing_is_said(damaged_voc, tmp_path, monkeypatch, capsys):
    read = data.voc(damaged_voc, "train").subset([0, 2])
    source = TrainingSource(read, data.InputPolicy(64, 96), 2, cache=tmp_path)
    tell_cache(source)
    assert capsys.readouterr().out == f"cache: 3.7e-05 GB for 2 images in {tmp_path}\n"
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free=SPARE + 20_000))
    tell_cache(source)
    assert (
        "only 2e-05 GB may be used: the rest is decoded in every epoch" in capsys.readouterr().out
    )
    source.caches[source.augmenter.readings[0]].read(
        0
    )  # 64 * 96 * 3 + 64 bytes; as many are still to come
    tell_cache(source)
    assert "used" not in capsys.readouterr().out
