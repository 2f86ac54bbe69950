"""The generated lists of names and shapes equal the real ones, where there are real ones."""

import hashlib
import json
from pathlib import Path

import pytest
from conftest import REFERENCE
from convert import key_lists

FIXTURES = Path(__file__).parent / "fixtures"
HASHES = json.loads((FIXTURES / "keys_torchvision_sha256.json").read_text())
TORCHVISION = {
    "fasterrcnn_resnet50_fpn": key_lists.torchvision_faster_rcnn,
    "retinanet_resnet50_fpn": key_lists.torchvision_retinanet,
}


def read_list(path):
    """Pairs of a name and a shape, in the order of the file."""
    rows = [line.split("\t") for line in path.read_text().splitlines() if line[0] != "#"]
    return [(name, () if shape == "scalar" else shape_of(shape)) for name, shape, *_ in rows]


def shape_of(text):
    return tuple(map(int, text.split("x")))


def sha256(keys):
    lines = (
        f"{name}\t{'x'.join(map(str, shape)) or 'scalar'}\t{'float32' if shape else 'int64'}"
        for name, shape in keys.items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", list(key_lists.MMDETECTION)[:3])
def test_mmdetections_published_detectors(name):
    path = REFERENCE / f"keys_{name}.txt"
    if not path.exists():
        pytest.skip(f"reference data not found: {path} (set LIBRA_KERAS_REFERENCE)")
    assert sorted(read_list(path)) == sorted(key_lists.MMDETECTION[name]().items())


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_detectors(name):
    listed = read_list(FIXTURES / f"keys_torchvision_{name}.txt")
    assert listed == list(TORCHVISION[name]().items())
    assert sha256(TORCHVISION[name](counters=True)) == HASHES[f"{name}, trained norms"]


@pytest.mark.parametrize("network", key_lists.RESNETS)
def test_torchvisions_classifiers(network):
    assert sha256(key_lists.torchvision_classifier(network)) == HASHES[network]


def test_names_before_0_13():
    # Those of the published files; torchvision itself loads them, see `torchvision_reference.py`.
    old = [key_lists.before_0_13(name) for name in key_lists.torchvision_retinanet()]
    assert "backbone.fpn.inner_blocks.2.bias" in old and "backbone.fpn.layer_blocks.0.weight" in old
    assert "head.classification_head.conv.6.weight" in old
    assert (
        "head.regression_head.conv.2.bias" in old and "backbone.body.layer1.0.conv1.weight" in old
    )
    assert "backbone.fpn.extra_blocks.p6.weight" in old  # as it was
    assert len(set(old)) == len(key_lists.torchvision_retinanet())
    old = [key_lists.before_0_13(name) for name in key_lists.torchvision_faster_rcnn()]
    assert len(old) == 295 and "rpn.head.conv.bias" in old


def test_lists_without_a_real_one():
    # 256 channels x 256 x 9 weights and 256 biases: a 3x3 convolution has 590,080 numbers.
    plain = key_lists.MMDETECTION["faster-rcnn_r50"]()
    path = key_lists.MMDETECTION["faster-rcnn_r50_pafpn"]()
    assert parameters(path) - parameters(plain) == 6 * 590_080
    # torchvision says 41,755,286 of its Faster R-CNN: without 53,120 factors and shifts of frozen
    # norms, with 10 more rows of scores and 11 more boxes, each of 1024 weights and a bias.
    assert parameters(plain) == 41_755_286 + 53_120 - (10 + 44) * 1025
    # And 34,014,999 of its RetinaNet: 99 more rows of 256 x 9 weights and a bias (11 classes at 9
    # anchors), but its P6 is made from P5, of 256 channels instead of C5's 2048; the same norms.
    retinanet = key_lists.MMDETECTION["retinanet_r50"]()
    assert parameters(retinanet) == 34_014_999 + 53_120 - 99 * 2305 + (2048 - 256) * 256 * 9
    first = key_lists.MMDETECTION["libra_faster_rcnn_r50 of 1.x"]()
    assert first["bbox_head.fc_cls.weight"] == (81, 1024)
    assert first["bbox_head.fc_reg.weight"] == (324, 1024)
    names = key_lists.first_release(first)
    assert "neck.1.refine.conv_mask.conv.weight" in names and len(names) == len(first)


def parameters(keys):
    """Numbers that training changes or could change; not the statistics of norms."""
    kinds = (".weight", ".bias")
    sizes = {name: shape for name, shape in keys.items() if name.endswith(kinds)}
    return sum(size(shape) for shape in sizes.values())


def size(shape):
    count = 1
    for side in shape:
        count *= side
    return count
