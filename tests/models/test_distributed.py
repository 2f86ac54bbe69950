"""Which batch normalisation a strategy of several replicas refuses."""

import types

import keras
import pytest

from libra_keras.backbones import BackboneAdapter, ResNet
from libra_keras.models.distributed import check_batch_norm

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's"
)


def detector(backbone, neck=()):
    """As much of a detector under two replicas as is looked at."""
    backbone.build((None, None, None, 3))
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    return types.SimpleNamespace(
        backbone=backbone, neck=neck, heads=list, distribute_strategy=strategy
    )


def network(synchronized=False):
    """A network of Keras with strides 4 to 32 and batch normalisation."""
    images = x = keras.Input((None, None, 3))
    maps = []
    for filters in (4, 4, 4, 4, 4):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization(synchronized=synchronized)(x)
        maps.append(x)
    return keras.Model(images, maps[1:])


def frozen(backbone):
    backbone.trainable = False
    return backbone


REFUSED = {
    "plain": lambda: ResNet(18, width=4, batch_norm="trainable"),
    "some of it plain": lambda: ResNet(18, width=4, batch_norm="trainable", frozen_stages=3),
    "Keras'": lambda: BackboneAdapter(network(), batch_norm="trainable"),
}
ACCEPTED = {
    "frozen": lambda: ResNet(18, width=4),
    "synchronized": lambda: ResNet(18, width=4, batch_norm="synchronized"),
    "does not train": lambda: frozen(ResNet(18, width=4, batch_norm="trainable")),
    "no stage trains": lambda: ResNet(18, width=4, batch_norm="trainable", frozen_stages=4),
    "Keras', frozen": lambda: BackboneAdapter(network()),
    "Keras', synchronized": lambda: BackboneAdapter(network(True), batch_norm="trainable"),
    "Keras', does not train": lambda: frozen(BackboneAdapter(network(), batch_norm="trainable")),
}


@pytest.mark.parametrize("backbone", REFUSED.values(), ids=REFUSED)
def test_statistics_of_one_replica_are_refused(backbone):
    with pytest.raises(ValueError, match="statistics of each replica only, and there are 2"):
        check_batch_norm(detector(backbone()))


@pytest.mark.parametrize("backbone", ACCEPTED.values(), ids=ACCEPTED)
def test_statistics_that_are_shared_or_do_not_move_are_accepted(backbone):
    check_batch_norm(detector(backbone()))


def test_the_neck_is_looked_at_too():
    own = keras.layers.BatchNormalization(name="own")
    with pytest.raises(ValueError, match="BatchNormalization 'own'"):
        check_batch_norm(detector(ResNet(18, width=4), [own]))
    own.trainable = False
    check_batch_norm(detector(ResNet(18, width=4), [own]))
