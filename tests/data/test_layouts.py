"""Folders of annotation tools are read without options."""

import os

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
