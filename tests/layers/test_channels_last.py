"""Layers alone under Keras' setting `channels_first`: they ask, and never take the wrong axis."""

import keras
import numpy as np
import pytest
from gradients import to_numpy

from libra_keras import backbones, layers
from libra_keras.layers.channels_last import ChannelsLast

pytestmark = pytest.mark.portable
MAPS = [np.ones((1, size, size, 8), "float32") for size in (16, 8)]
IMAGES = np.ones((1, 32, 32, 3), "float32")
# Of each layer the options, and what it is called with.
CALLS = {
    layers.FeaturePyramid: ({"channels": 4}, [MAPS]),
    layers.PathAggregationPyramid: ({"channels": 4}, [MAPS]),
    layers.BalancedFeaturePyramid: ({"refine_level": 1, "refiner": "non_local"}, [MAPS]),
    layers.MultilevelROIAlign: ({"strides": (4,)}, [MAPS, np.ones((1, 2, 4), "float32")]),
    layers.NonLocalBlock: ({}, [MAPS[0]]),
    layers.ImageNormalization: ({}, [IMAGES]),
    backbones.ConvBatchNorm: ({"filters": 4}, [MAPS[0]]),
    backbones.ResNet: ({"depth": 18, "width": 4}, [IMAGES]),
}
ONE_TENSOR = [
    layers.NonLocalBlock,
    layers.ImageNormalization,
    backbones.ConvBatchNorm,
    backbones.ResNet,
]
every = pytest.mark.parametrize("cls", CALLS, ids=lambda cls: cls.__name__)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_all_layers_are_here():
    exported = [getattr(layers, name) for name in layers.__all__]
    exported += [getattr(backbones, name) for name in backbones.__all__]
    # The adapter refuses a network whose images have channels first, whatever the setting is.
    assert set(CALLS) == set(exported) - {backbones.BackboneAdapter}
    assert all(issubclass(cls, ChannelsLast) for cls in CALLS)


@every
def test_a_layer_must_be_told(channels_first, cls):
    options, inputs = CALLS[cls]
    layer = cls(**options)
    assert layer.get_config()["data_format"] == "channels_first"
    with pytest.raises(
        ValueError, match=f"{cls.__name__} .*\\(B, H, W, C\\).*'channels_first'.*pass"
    ):
        layer(*inputs)
    layer = cls(**options, data_format="channels_last")
    layer(*inputs)
    keras.config.set_image_data_format("channels_last")
    again = cls(**options)
    again(*inputs)
    again.set_weights(layer.get_weights())
    keras.tree.map_structure(
        np.testing.assert_array_equal, to_numpy(layer(*inputs)), to_numpy(again(*inputs))
    )


@every
def test_a_saved_layer_knows(channels_first, cls):
    options, inputs = CALLS[cls]
    keras.config.set_image_data_format("channels_last")
    config = cls(**options).get_config()
    keras.config.set_image_data_format("channels_first")
    assert config["data_format"] == "channels_last"
    cls.from_config(config)(*inputs)
    del config["data_format"]  # as in files from before there was one
    cls.from_config(config)(*inputs)


@every
def test_channels_first_is_refused(cls):
    message = "`data_format` must be \"channels_last\", the only one .*data_format='channels_first'"
    with pytest.raises(ValueError, match=message):
        cls(**CALLS[cls][0], data_format="channels_first")


def test_a_refiner_is_told_by_its_pyramid(channels_first):
    block = layers.NonLocalBlock(reduction=1)
    layer = layers.BalancedFeaturePyramid(1, block, data_format="channels_last")
    layers.BalancedFeaturePyramid.from_config(layer.get_config())(MAPS)
    layer(MAPS)
    assert block.g.kernel.shape == (1, 1, 8, 8)
    conv = keras.layers.Conv2D(8, 3, padding="same")  # Keras' own takes the setting
    with pytest.raises(ValueError, match='`refiner` must have `data_format="channels_last"`'):
        layers.BalancedFeaturePyramid(1, conv, data_format="channels_last")(MAPS)


@pytest.mark.parametrize("make", [np.ones, keras.KerasTensor], ids=["eager", "symbolic"])
@pytest.mark.parametrize("cls", ONE_TENSOR, ids=lambda cls: cls.__name__)
def test_a_built_layer_takes_no_other_tensor(cls, make):
    options, (x,) = CALLS[cls]
    layer = cls(**options)
    layer(x)
    name = "x" if x is MAPS[0] else "images"
    with pytest.raises(
        ValueError, match=rf"'{name}' .*axis -1 .*to have value {x.shape[-1]}.*, 5\)"
    ):
        layer(make((*x.shape[:-1], 5), "float32"))
    with pytest.raises(ValueError, match=f"'{name}' .*ndim=4, found ndim=3"):
        layer(make(x.shape[1:], "float32"))
    if cls is not layers.ImageNormalization and make is np.ones:  # that is there for bytes
        with pytest.raises(ValueError, match=f"`{name}` must hold floats.*dtype=uint8"):
            layer(x.astype("uint8"))
