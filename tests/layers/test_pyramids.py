"""Layers of pyramids take what they were built for, and say where something else came."""

import keras
import numpy as np
import pytest

from libra_keras import layers

pytestmark = pytest.mark.portable
SIZES = {"P2": 16, "P3": 8, "P4": 4}
BOXES = np.zeros((1, 2, 4), "float32")
LAYERS = {
    layers.FeaturePyramid: {"channels": 4},
    layers.PathAggregationPyramid: {"channels": 4},
    layers.BalancedFeaturePyramid: {"refine_level": 1},
    layers.MultilevelROIAlign: {"strides": (4, 8, 16)},
}
OTHERS = {"ImageNormalization", "NonLocalBlock"}  # they take one tensor
every = pytest.mark.parametrize("cls", LAYERS, ids=lambda cls: cls.__name__)


def pyramid(make=np.ones, **changes):
    """Levels of eight channels; `changes` are shapes, or `None` for no such level."""
    shapes = {name: (1, size, size, 8) for name, size in SIZES.items()} | changes
    return {name: make(shape, "float32") for name, shape in shapes.items() if shape is not None}


def built(cls, shapes=None):
    layer = cls(**LAYERS[cls])
    call(layer, shapes or pyramid())
    return layer


def call(layer, levels):
    return layer(levels, BOXES) if isinstance(layer, layers.MultilevelROIAlign) else layer(levels)


def test_all_layers_of_pyramids_are_here():
    assert {cls.__name__ for cls in LAYERS} | OTHERS == set(layers.__all__)


WRONG = [
    ({"P4": None}, r"(3 levels: P2, P3, P4|of the strides .*)\. Received: 2 levels"),
    ({"P2": None, "P5": (1, 2, 2, 8)}, "P2, P3, P4. Received: (3 levels: )?P3, P4, P5"),
    (
        {"P4": (1, 4, 4, 1)},
        r"`pyramid\['P4'\]` must have shape.* 8.* Received: shape=\(1, 4, 4, 1\)",
    ),
    ({"P4": (1, 4, 8)}, r"`pyramid\['P4'\]` must have shape.* Received: shape=\(1, 4, 8\)"),
    (
        {"P4": (3, 4, 4, 8)},
        r"`pyramid\['P4'\]`.*, B being 1 as in `pyramid\['P2'\]`.*\(3, 4, 4, 8\)",
    ),
]


@pytest.mark.parametrize("make", [np.ones, keras.KerasTensor], ids=["eager", "symbolic"])
@pytest.mark.parametrize(("changes", "message"), WRONG)
@every
def test_another_pyramid_is_refused(cls, changes, message, make):
    with pytest.raises(ValueError, match=message):
        call(built(cls), pyramid(make, **changes))


@every
def test_places_in_a_list_are_numbers(cls):
    levels = list(pyramid(P4=(1, 4, 4, 1)).values())
    for layer in (built(cls), built(cls, list(pyramid().values()))):
        with pytest.raises(ValueError, match=r"`pyramid\[2\]` must have shape"):
            call(layer, levels)


@every
def test_other_numbers_than_floats_are_refused(cls):
    levels = {name: level.astype("int32") for name, level in pyramid().items()}
    with pytest.raises(ValueError, match=r"`pyramid\['P2'\]` must hold floats.*dtype=int32"):
        call(built(cls), levels)


@every
def test_one_tensor_is_no_pyramid(cls):
    for layer in (built(cls), cls(**LAYERS[cls])):
        with pytest.raises(ValueError, match=r"A pyramid must be .*one tensor of shape \(1, 16, 1"):
            call(layer, pyramid()["P2"])


@pytest.mark.parametrize("cls", [each for each in LAYERS if each is not layers.MultilevelROIAlign])
def test_shapes_are_told_before_a_layer_is_built(cls):
    found = cls(**LAYERS[cls]).compute_output_spec(pyramid(keras.KerasTensor))
    assert next(iter(found.values())).shape[:3] == (1, 16, 16)


@every
def test_other_sizes_and_lists_for_dicts_are_good(cls):
    layer = built(cls)
    halves = {name: (2, size // 2, size // 2, 8) for name, size in SIZES.items()}
    if cls is layers.MultilevelROIAlign:
        halves = {name: (1, *shape[1:]) for name, shape in halves.items()}  # as many as of boxes
    call(layer, list(pyramid(**halves).values()))
    call(layer, pyramid(keras.KerasTensor, P4=(1, None, None, None)))


def test_roi_align_ignores_coarser_levels_whatever_they_are():
    layer = built(layers.MultilevelROIAlign)
    assert layer(pyramid(P5=(1, 2, 2, 3)), BOXES).shape == (1, 2, 7, 7, 8)
    with pytest.raises(ValueError, match=r"`boxes` must have shape \(B, N, 4\).*\(2, 4\)"):
        layer(pyramid(), BOXES[0])


def test_a_feature_pyramid_ignores_the_levels_before_its_first():
    layer = layers.FeaturePyramid(4, start_level=1)
    layer(pyramid())
    layer(pyramid(P2=(1, 16, 16, 3)))
    with pytest.raises(ValueError, match=r"`pyramid\['P3'\]`"):
        layer(pyramid(P3=(1, 8, 8, 3)))


def test_sizes_of_a_path_aggregation_pyramid_halve():
    layer = built(layers.PathAggregationPyramid)
    for make in (np.ones, keras.KerasTensor):
        with pytest.raises(ValueError, match=r"`pyramid\['P4'\]` must have half .*\(1, 1, 4, 8\)"):
            layer(pyramid(make, P4=(1, 1, 4, 8)))  # a height of 1 would be broadcast
