"""Every detector that the paper measures can be built by name."""

import collections
import inspect
import itertools
import pickle

import keras
import pytest

from libra_keras import models
from libra_keras.backbones import ResNet
from libra_keras.models.constructors.parts import NETWORKS, network_of, resnet

# The rows of the paper's table 1 that were trained with the authors' code; 1x and 2x differ in
# the schedule alone.
TABLE_1 = {
    "Faster R-CNN* R50": "faster_rcnn_resnet50",
    "Faster R-CNN* R101": "faster_rcnn_resnet101",
    "Faster R-CNN* X101-64x4d": "faster_rcnn_resnext101_64x4d",
    "RetinaNet* R50": "retinanet_resnet50",
    "Libra R-CNN R50": "libra_faster_rcnn_resnet50",
    "Libra R-CNN R101": "libra_faster_rcnn_resnet101",
    "Libra R-CNN X101-64x4d": "libra_faster_rcnn_resnext101_64x4d",
    "Libra RetinaNet R50": "libra_retinanet_resnet50",
}
NARROW = {
    **{f"resnet{depth}": {"depth": 18, "width": 8} for depth in (50, 101)},
    **{name: {"depth": 50, "width": 8, "groups": 4} for name in NETWORKS if "resnext" in name},
}
IN_DEFAULT_SUITE = {"libra_faster_rcnn_resnext101_64x4d"}  # the others take too long together


def test_table_1_is_complete():
    assert set(TABLE_1.values()) <= set(models.list())


def test_names_lead_to_functions():
    names = models.list()
    assert names == sorted(set(names))
    assert all(inspect.isfunction(getattr(models, name)) for name in names)
    assert len(set(models.__all__)) == len(models.__all__)
    assert set(names) < set(models.__all__) and "list" not in models.__all__


def test_all_names_can_be_imported_at_once():
    found = {}
    exec("from libra_keras.models import *", found)
    assert set(models.__all__) <= set(found) and "list" not in found


@pytest.mark.parametrize("name", models.list())
def test_each_function_knows_its_name(name):
    function = getattr(models, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert (function.__name__, function.__qualname__) == (name, name)
    first = function.__doc__.splitlines()[0]
    assert first.endswith(".") and "{" not in first
    assert name.startswith("libra_") == first.startswith(("Libra", "Small Libra"))


def test_patterns():
    assert models.list("rpn_resnet*") == ["rpn_resnet101", "rpn_resnet50"]
    assert "faster_rcnn_small" in models.list("*_small") and "rpn_resnet50" not in models.list(
        "*_small"
    )
    assert models.list("nothing") == []


def test_every_libra_detector_has_a_plain_twin():
    for name in models.list("libra_*"):
        assert name.removeprefix("libra_") in models.list()


def test_names_tell_the_network():
    assert network_of("faster_rcnn_pafpn_resnet50") == "resnet50"
    assert network_of("faster_rcnn_resnext101_32x4d") == "resnext101_32x4d"
    assert network_of("retinanet_small") is None
    network = resnet("resnext101_64x4d", style="caffe")
    parts = network.depth, network.groups, network.base_width, network.style
    assert parts == (101, 64, 4, "caffe")


def test_on_another_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "resnet101", {"depth": 18, "width": 4})
    build = models.libra_retinanet_resnet101
    original = models.libra_retinanet_resnet50
    assert inspect.signature(build) == inspect.signature(original)
    assert build.__module__ == original.__module__
    line = "Libra RetinaNet with ResNet-101; otherwise `libra_retinanet_resnet50`, argument by"
    assert build.__doc__.startswith(f"{line} argument.")
    model = build(2, dtype="mixed_bfloat16", class_names=["cat", "dog"])
    assert (model.backbone.width, model.backbone.compute_dtype) == (4, "bfloat16")
    assert model.num_classes == 2 and model.head.box_loss.beta == 0.11
    own = ResNet(18, width=8)
    assert build(2, own).backbone is own and build(num_classes=2, backbone=own).backbone is own
    with pytest.raises(TypeError, match="too many positional arguments"):
        build(2, own, "three")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_DEFAULT_SUITE else pytest.mark.slow)
        for name in models.list()
    ],
)
def test_each_builds_on_a_narrow_backbone(name):
    build, network = getattr(models, name), network_of(name)
    arguments = {"backbone": ResNet(**NARROW[network])} if network else {}
    if "num_classes" in inspect.signature(build).parameters:
        arguments["num_classes"] = 2
    model = build(**arguments, seed=3)
    assert model.built and model.seed == 3 and model.count_params() > 0
    assert model.num_classes == arguments.get("num_classes", 1)
    assert (len(model.neck) == 2) == name.startswith("libra_")


@pytest.mark.parametrize("name", ["libra_faster_rcnn_small", "libra_retinanet_small"])
def test_no_two_kernels_start_equal(name):
    """An initializer that several layers share gives all of them the same numbers."""
    by_shape = collections.defaultdict(list)
    for variable in getattr(models, name)(num_classes=2).trainable_variables:
        values = keras.ops.convert_to_numpy(variable)
        if values.ndim > 1 and values.any():  # the last of the non-local block is zeros
            by_shape[values.shape].append((variable.path, values))
    assert max(map(len, by_shape.values())) > 3
    for alike in by_shape.values():
        for (path, one), (other_path, other) in itertools.combinations(alike, 2):
            assert (one != other).any(), (path, other_path)
