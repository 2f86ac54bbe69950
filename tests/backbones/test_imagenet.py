import hashlib

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from libra_keras import keras_private
from libra_keras.backbones import ResNet, resnet
from libra_keras.backbones.resnet import imagenet_values, warn_of_bias

OUTPUTS = {
    "C2": "conv2_block3_out",
    "C3": "conv3_block4_out",
    "C4": "conv4_block6_out",
    "C5": "conv5_block3_out",
}


@pytest.fixture(scope="module")
def network():
    """keras.applications.ResNet50 with random values in every variable but the biases."""
    rng = np.random.default_rng(0)
    network = keras.applications.ResNet50(include_top=False, weights=None)
    for variable in network.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.0, variable.shape))
        elif variable.name in ("beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return network


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture(scope="module")
def backbone(path, tmp_path_factory):
    """Our network, of a file that is gone once it is built."""
    copy = tmp_path_factory.mktemp("copy") / "copy.weights.h5"
    copy.write_bytes(path.read_bytes())
    backbone = ResNet(50, style="caffe", weights=copy)
    backbone.build((None, None, None, 3))
    copy.unlink()
    return backbone


@pytest.mark.slow
def test_equals_keras_applications(network, backbone, rng):
    layers = [network.get_layer(name).output for name in OUTPUTS.values()]
    images = rng.normal(0, 50, (1, 64, 96, 3)).astype("float32")
    expected = keras.Model(network.input, layers)(images)
    actual = backbone(images)
    for ours, theirs in zip(actual.values(), expected, strict=True):
        ours, theirs = ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
        assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


@pytest.mark.slow
def test_the_file_is_not_needed_again(backbone, tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), backbone])
    assert backbone.get_config()["weights"] is None
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for saved, restored in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, restored)


@pytest.mark.slow  # builds a ResNet-101
@pytest.mark.slow
def test_weights_of_another_network_are_refused(path):
    with pytest.raises(ValueError, match="must fit keras.applications.ResNet101"):
        ResNet(101, style="caffe", weights=path).build((None, None, None, 3))


@pytest.mark.parametrize("wrong", [{"style": "pytorch"}, {"style": "caffe", "width": 32}])
def test_other_styles_and_widths_are_refused(wrong):
    with pytest.raises(ValueError, match='require `style="caffe"`, `width=64` and no `groups`'):
        ResNet(50, weights="imagenet", **wrong)


def test_other_depths_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="exist for depths .50, 101, 152.. Received: depth=34"):
        ResNet(34, style="caffe", weights="imagenet").build((None, None, None, 3))
    with pytest.raises(ValueError, match="the path of an existing file. Received.*nowhere"):
        ResNet(50, style="caffe", weights=tmp_path / "nowhere.h5").build((None, None, None, 3))


def test_a_bias_that_matters_gives_a_warning():
    warn_of_bias(np.array([1e-4, -1e-4]), "conv1_conv")
    with pytest.warns(UserWarning, match="bias of conv1_conv is dropped although it reaches 0.5"):
        warn_of_bias(np.array([1e-4, -0.5]), "conv1_conv")


@pytest.mark.slow
def test_imagenet_is_the_file_that_keras_would_download(network, tmp_path, monkeypatch):
    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(tmp_path / name, "w") as file:
        save_weights_to_hdf5_group(file, network)
    monkeypatch.setenv("LIBRA_KERAS_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match=f"{name} is damaged, or a different file: its md5 is"):
        imagenet_values("imagenet", 50)
    address, _ = keras_private.imagenet_file("ResNet50")
    assert address.endswith(f"/keras-applications/resnet/{name}")
    found = hashlib.md5((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(resnet, "imagenet_file", lambda name: (address, found))
    values = imagenet_values("imagenet", 50)(4, 0, 3)
    np.testing.assert_array_equal(values["kernel"], network.get_layer("conv5_block1_3_conv").kernel)
