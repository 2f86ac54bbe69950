"""Folders of annotation tools are read without options."""

import os
import shutil

import numpy as np
import pytest
from annotation_files import BOXES, SCENES
from tool_layouts import LAYOUTS

from libra_keras import data
from libra_keras.data.sources import find_layout


@pytest.mark.parametrize("title", LAYOUTS)
def test_reads_what_the_tool_wrote(tmp_path, title):
    expected = LAYOUTS[title](tmp_path)
    assert sorted(find_layout(tmp_path).splits) == sorted(expected.splits)
    for split in expected.splits:
        read = data.load(tmp_path, split)
        assert read.class_names == expected.class_names
        sizes = sorted((example.width, example.height) for example in read.examples)
        assert sizes == sorted(size for size, _ in SCENES)
        assert sum(example.num_boxes for example in read.examples) == 3
        assert not any(finding for finding in read.findings if not finding.is_warning)
        assert all(np.size(read.read_image(i)) for i in range(len(read)))
        if split == expected.splits[0]:
            (example,) = (e for e in read.examples if str(e.file).endswith(expected.image))
            names = [read.class_names[label] for label in example.labels]
            np.testing.assert_allclose(example.boxes, [box for _, box in BOXES], atol=1e-3)
            assert names == [name for name, _ in BOXES]


@pytest.mark.parametrize("title", LAYOUTS)
def test_hidden_copies_change_nothing(tmp_path, title):
    """As macOS leaves them beside files, and Jupyter in folders."""
    splits = LAYOUTS[title](tmp_path).splits
    before = {split: boxes_of(data.load(tmp_path, split)) for split in splits}
    for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7")
        copies = file.parent / ".ipynb_checkpoints"
        copies.mkdir(exist_ok=True)
        shutil.copy(file, copies / file.name)
        shutil.copy(file, copies / f"{file.stem}-checkpoint{file.suffix}")
    assert sorted(find_layout(tmp_path).splits) == sorted(splits)
    assert {split: boxes_of(data.load(tmp_path, split)) for split in splits} == before


def boxes_of(read):
    return read.class_names, [(str(e.file), e.boxes.tolist()) for e in read.examples]


@pytest.mark.parametrize(
    ("title", "folders"),
    [
        ("Label Studio VOC", ("images", "Annotations")),
        ("Ultralytics", ("images/train", "labels/train")),
    ],
)
def test_links_to_folders_are_followed(tmp_path, title, folders):
    """Files may lie on another disk; a link that leads back is not followed forever."""
    split, *_ = LAYOUTS[title](tmp_path / "a").splits
    before = data.load(tmp_path / "a", split)
    for number, folder in enumerate(folders):
        elsewhere = (tmp_path / "a" / folder).rename(tmp_path / f"{number}")
        (tmp_path / "a" / folder).mkdir()
        (tmp_path / "a" / folder / "linked").symlink_to(elsewhere)
        (elsewhere / "back").symlink_to(tmp_path / "a" / folder)
    after = data.load(tmp_path / "a", split)
    for read in (before, after):
        read.examples.sort(key=lambda example: example.file.name)
    for one, other in zip(before.examples, after.examples, strict=True):
        assert other.file.parent.name == "linked"
        np.testing.assert_array_equal(one.boxes, other.boxes)


class Backwards:
    """What `os.scandir` returns, in the other order."""

    def __init__(self, entries):
        with entries:
            self.left = list(entries)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("title", LAYOUTS)
def test_the_order_of_files_on_the_disk_changes_nothing(tmp_path, monkeypatch, title):
    splits = LAYOUTS[title](tmp_path).splits

    def read():
        for split in splits:
            found = data.load(tmp_path, split)
            yield found.class_names, found.name
            yield from ((str(e.file), e.image_id, e.boxes.tolist()) for e in found.examples)

    before, listdir, scandir = list(read()), os.listdir, os.scandir
    monkeypatch.setattr(os, "listdir", lambda *where: listdir(*where)[::-1])
    monkeypatch.setattr(os, "scandir", lambda *where: Backwards(scandir(*where)))
    assert next(iter(tmp_path.rglob("*"))) and list(read()) == before
