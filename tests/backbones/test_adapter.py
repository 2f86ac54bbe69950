import keras
import numpy as np
import pytest
from drawn import drawn_batch
from keras import layers, ops

from libra_keras.backbones import BackboneAdapter
from libra_keras.data import InputPolicy
from libra_keras.layers import ImageNormalization
from libra_keras.models import faster_rcnn_small
from libra_keras.training import SGD

numpy_of = ops.convert_to_numpy
STRIDES = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}


def residual_network(images=None, rescale=False, name="residual"):
    """Five stages of stride 2, the last four with a shortcut; 4 and 8 channels."""
    x = images = keras.Input((None, None, 3)) if images is None else images
    if rescale:
        x = layers.Rescaling(1 / 255)(x)
    for i, channels in enumerate((4, 8, 8, 8, 8), start=1):
        x = layers.Conv2D(channels, 3, 2, padding="same", name=f"down{i}")(x)
        y = layers.BatchNormalization(name=f"norm{i}")(x)
        y = layers.Conv2D(channels, 3, padding="same", name=f"conv{i}")(layers.ReLU()(y))
        x = layers.ReLU(name=f"out{i}")(layers.Add(name=f"sum{i}")([x, y]))
    return keras.Model(images, x, name=name)


def maps_of(strides, layout=list):
    """A model with one output for each stride, in this order."""
    images = keras.Input((None, None, 3))
    outputs = [layers.AveragePooling2D(s, padding="same", name=f"by{s}")(images) for s in strides]
    if layout is dict:
        outputs = {f"map{s}": output for s, output in zip(strides, outputs, strict=True)}
    return keras.Model(images, outputs, name="maps")


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(6, 3, 4, padding="same")
        self.pool = layers.MaxPooling2D()

    def call(self, images, training=None):
        outputs = [self.stem(images)]
        for _ in range(3):
            outputs.append(self.pool(outputs[-1]))
        return outputs

    def compute_output_shape(self, shape):
        halves = [[None if n is None else -(-n // s) for n in shape[1:3]] for s in (4, 8, 16, 32)]
        return [(shape[0], *size, 6) for size in halves]


def small_detector(backbone=None, **options):
    backbone = backbone or BackboneAdapter(residual_network())
    return faster_rcnn_small(6, backbone, input_policy=InputPolicy(64, 64), **options)


@pytest.mark.portable
def test_the_end_of_each_stage_is_found(rng):
    network = residual_network()
    backbone = BackboneAdapter(network)
    assert backbone.levels == ["out2", "out3", "out4", "out5"]  # after the ReLU after the sum
    images = rng.normal(size=(1, 64, 96, 3)).astype("float32")
    features = backbone(images)
    assert list(features) == list(STRIDES)
    for level, stride in STRIDES.items():
        assert tuple(features[level].shape) == (1, 64 // stride, 96 // stride, 8)
    np.testing.assert_allclose(numpy_of(features["C5"]), numpy_of(network(images)), atol=1e-6)


def test_the_expansion_of_the_next_stage_is_not_taken():
    """Inverted bottlenecks widen at the old stride; the stage ends before that, at its sum."""
    x = images = keras.Input((None, None, 3))
    for stage in range(5):
        x = layers.Conv2D(12, 1, name=f"expand{stage}")(x)
        x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # one row and column more: no stride
        x = layers.DepthwiseConv2D(3, 2, name=f"down{stage}")(x)
        x = layers.Conv2D(4, 1, name=f"project{stage}")(x)
        if stage in (1, 2):
            x = layers.Dropout(0.1, name=f"dropout{stage}")(ops.add(x, layers.Conv2D(4, 1)(x)))
    network = keras.Model(images, layers.ReLU(name="top")(x))
    # Stage 4, of stride 16, has no sum: the last map of that stride is the next expansion.
    assert BackboneAdapter(network).levels == ["dropout1", "dropout2", "expand4", "top"]


def test_layers_can_be_named():
    backbone = BackboneAdapter(residual_network(), ["down2", "conv3", "sum4", "norm5"])
    assert backbone.levels == ["down2", "conv3", "sum4", "norm5"]
    assert "conv5" not in [layer.name for layer in backbone.model.layers]  # what follows is cut
    with pytest.raises(ValueError, match="C4 must have stride 16, but layer 'out3' .* has 8"):
        BackboneAdapter(residual_network(), ["out2", "out3", "out3", "out5"])
    with pytest.raises(ValueError, match=r"'out6' must be a layer .*\['out5'"):
        BackboneAdapter(residual_network(), ["out2", "out3", "out4", "out6"])
    with pytest.raises(ValueError, match="four names"):
        BackboneAdapter(residual_network(), ["out2", "out3"])


@pytest.mark.parametrize("layout", [list, dict])
def test_outputs_are_sorted_by_stride(layout):
    backbone = BackboneAdapter(maps_of((2, 32, 8, 4, 64, 16), layout))
    assert backbone.levels == ["by4", "by8", "by16", "by32"]


def test_a_subclassed_model_with_several_outputs(rng):
    backbone = BackboneAdapter(Subclassed())
    copy = BackboneAdapter.from_config(backbone.get_config())
    images = rng.normal(size=(1, 64, 64, 3)).astype("float32")
    copy.set_weights(backbone.get_weights())
    for level, features in backbone(images).items():
        assert tuple(features.shape) == backbone.compute_output_shape((1, 64, 64, 3))[level]
        np.testing.assert_allclose(numpy_of(copy(images)[level]), numpy_of(features), rtol=1e-6)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"strides \(4, 8, 16, 32\).*'maps' has none for C4"):
        BackboneAdapter(maps_of((4, 8, 32)))
    with pytest.raises(ValueError, match=r"\(64, 64\) only; .*input_shape=\(None, None, 3\)"):
        BackboneAdapter(residual_network(keras.Input((64, 64, 3))))
    with pytest.raises(ValueError, match=r"channels last.*\(None, 3, None, None\)"):
        images = keras.Input((3, None, None))
        BackboneAdapter(keras.Model(images, images + 1))
    with pytest.raises(TypeError, match="keras.Model.*Conv2D"):
        BackboneAdapter(layers.Conv2D(3, 3))
    with pytest.raises(ValueError, match="'synchronized'"):
        BackboneAdapter(residual_network(), batch_norm="synchronized")
    with pytest.raises(ValueError, match="0 to 4. Received: 5"):
        BackboneAdapter(residual_network(), frozen_stages=5)


def test_detectors_refuse_a_bare_network():
    with pytest.raises(
        TypeError, match=r"'residual' returns a single one .*BackboneAdapter\(model\)"
    ):
        small_detector(residual_network())


def test_shapes_of_unknown_and_odd_sizes(rng):
    backbone = BackboneAdapter(residual_network())
    unknown = backbone.compute_output_shape((None, None, None, 3))
    assert unknown == dict.fromkeys(STRIDES, (None, None, None, 8))
    odd = backbone(rng.normal(size=(2, 75, 101, 3)).astype("float32"))
    shapes = {level: tuple(features.shape) for level, features in odd.items()}
    assert shapes == backbone.compute_output_shape((2, 75, 101, 3))
    assert shapes["C4"] == (2, 5, 7, 8)


@pytest.mark.parametrize("batch_norm", ["frozen", "trainable"])
def test_statistics_move_only_where_asked(rng, batch_norm):
    network = residual_network()
    backbone = BackboneAdapter(network, batch_norm=batch_norm, frozen_stages=1)
    images = rng.normal(1, 2, (2, 64, 64, 3)).astype("float32")
    inference = numpy_of(backbone(images, training=False)["C5"])
    training = numpy_of(backbone(images, training=True)["C5"])
    norms = [network.get_layer(f"norm{i}") for i in range(1, 6)]
    moved = [bool(numpy_of(norm.moving_mean).any()) for norm in norms]
    if batch_norm == "frozen":
        np.testing.assert_array_equal(inference, training)
        assert moved == [False] * 5
    else:
        assert np.abs(inference - training).max() > 1e-3
        assert moved == [False, False, True, True, True]  # the layers up to C2 are frozen
    trainable = {variable.path for variable in backbone.trainable_variables}
    assert network.get_layer("norm3").gamma.path in trainable  # scales train in any case


# A stage has two convolutions (kernel, bias) and a normalisation (gamma, beta): 6 variables.
@pytest.mark.parametrize(("frozen_stages", "trainable"), [(0, 30), (1, 18), (2, 12), (4, 0)])
def test_frozen_stages_do_not_train(frozen_stages, trainable):
    backbone = BackboneAdapter(residual_network(), frozen_stages=frozen_stages)
    assert len(backbone.trainable_variables) == trainable
    backbone.trainable = False
    assert len(backbone.trainable_variables) == 0
    backbone.trainable = True  # does not melt what is frozen
    assert len(backbone.trainable_variables) == trainable


def test_a_frozen_network_and_frozen_layers_stay_so_when_saved():
    network = residual_network()
    network.get_layer("down1").trainable = False
    partly = BackboneAdapter(network, name="partly")
    wholly = BackboneAdapter(residual_network(), trainable=False)
    for backbone, trainable in ((partly, 28), (wholly, 0)):
        copy = BackboneAdapter.from_config(backbone.get_config())
        assert copy.get_config() == backbone.get_config()
        for one in (backbone, copy):
            # the list of a detector, which asks each variable
            assert sum(variable.trainable for variable in one.weights) == trainable
    partly.trainable = False
    assert not any(variable.trainable for variable in partly.weights)
    partly.trainable = True  # does not melt what was given as frozen
    assert sum(variable.trainable for variable in partly.weights) == 28


def test_the_default_normalization_is_what_the_network_wants():
    plain, rescaling = (BackboneAdapter(residual_network(rescale=r)) for r in (False, True))
    assert not plain.rescales and rescaling.rescales
    for backbone, expected in (
        (plain, ImageNormalization.torch_style()),
        (rescaling, ImageNormalization.none()),
    ):
        normalization = small_detector(backbone).normalization
        assert (normalization.mean, normalization.std) == (expected.mean, expected.std)


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    yield lambda: keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_dtype_policy(before)


def test_a_float32_network_in_a_detector_of_half_precision(rng, half_precision):
    network = residual_network()
    half_precision()
    model = small_detector(BackboneAdapter(network))
    images = rng.integers(0, 255, (1, 64, 64, 3), "uint8")
    features = model.backbone(model.normalization(images))
    assert keras.backend.standardize_dtype(features["C2"].dtype) == "float32"
    pyramid = model.pyramid(images, np.array([[64, 64]], "int32"))
    assert keras.backend.standardize_dtype(pyramid[0].dtype) == "bfloat16"
    assert np.isfinite(numpy_of(ops.cast(pyramid[0], "float32"))).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs tf.function")
def test_unknown_sizes_in_a_graph(rng):
    import tensorflow as tf

    backbone = BackboneAdapter(residual_network())
    traced = tf.function(backbone, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for shape in ((1, 75, 101, 3), (2, 32, 64, 3)):
        images = tf.constant(rng.normal(size=shape), "float32")
        for level, features in traced(images).items():
            np.testing.assert_allclose(features, backbone(images)[level], atol=1e-5)


@pytest.mark.slow
def test_a_detector_learns():
    keras.utils.set_random_seed(0)
    backbone = BackboneAdapter(residual_network(), frozen_stages=1)
    model = small_detector(backbone)
    model.compile(SGD(0.01))
    before = {variable.path: numpy_of(variable) for variable in backbone.weights}
    x, y = drawn_batch(2, model.input_policy)
    losses = [model.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]
    moved = {v.path for v in backbone.weights if not np.array_equal(numpy_of(v), before[v.path])}
    assert moved == {variable.path for variable in backbone.trainable_variables}
