"""Folders of annotation tools are read without options."""

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
