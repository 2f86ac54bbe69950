"""Saved detectors that are damaged: `.keras` files, and folders of `model.json` and weights."""

import io
import json
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest
from hostile_files import zipped
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, SLOW, cases, damaged_bytes, damaged_values

from libra_keras.backbones import BackboneAdapter
from libra_keras.data import InputPolicy
from libra_keras.files.weights import array_sizes, load_weights
from libra_keras.layers import FeaturePyramid
from libra_keras.models import RegionProposalNetwork, RPNHead, RPNSettings
from libra_keras.models.saved import load_detector

WEIGHTS = "model.weights.h5"


def tiny(backbone=None):
    """The smallest detector; its own backbone is a network of Keras."""
    images = keras.Input((None, None, 3))
    maps = [keras.layers.Conv2D(2, 3, strides=4, padding="same")(images)]
    for _ in range(3):
        maps.append(keras.layers.AveragePooling2D(2, padding="same")(maps[-1]))
    backbone = backbone or BackboneAdapter(keras.Model(images, maps))
    settings = RPNSettings(channels=2, strides=(16, 32), post_nms=5)
    policy = InputPolicy(32, 48)
    neck = FeaturePyramid(2, num_levels=2, start_level=2)
    return RegionProposalNetwork(backbone, neck, RPNHead(settings), input_policy=policy)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The content of a `.keras` file by the names of its members."""
    path = tmp_path_factory.mktemp("keras") / "tiny.keras"
    tiny().save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def is_right(tmp_path, guarded, members):
    """A check: what is saved is an error that names it, or a detector with finite weights, which
    are those of the file if only its config has changed."""
    sound = array_values(members[WEIGHTS])

    def check(config, weights, is_file):
        if is_file:
            path = tmp_path / "tiny.keras"
            path.write_bytes(zipped({"config.json": config, WEIGHTS: weights}))
        else:
            path = tmp_path / "tiny"
            path.mkdir(exist_ok=True)
            (path / "model.json").write_bytes(config)
            (path / "last.weights.h5").write_bytes(weights)
        guarded.forget()
        try:
            found = load_detector(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        else:
            assert isinstance(found, RegionProposalNetwork)
            values = found.get_weights()
            assert all(np.isfinite(value).all() for value in values)
            if weights == members[WEIGHTS]:
                assert sorted(map(np.sum, values)) == sorted(map(np.sum, sound))
        guarded()

    return check


def array_values(content):
    found = []
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(
            lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return found


@cases(SLOW)
@given(data=st.data())
def test_saved_detectors(data, is_right, members):
    config, weights = members["config.json"], members[WEIGHTS]
    if data.draw(st.integers(0, 3)):
        config = json.dumps(data.draw(damaged_values(json.loads(config)))[0]).encode()
    elif data.draw(st.booleans()):
        config = data.draw(damaged_bytes(config))
    else:
        weights = data.draw(damaged_bytes(weights))
    is_right(config, weights, data.draw(st.booleans()))


@pytest.mark.slow
@cases(FAST)
@given(data=st.data())
def test_files_of_weights(data, tmp_path, guarded, members):
    """Without a network, which takes most of the time."""
    path = tmp_path / "last.weights.h5"
    path.write_bytes(data.draw(damaged_bytes(members[WEIGHTS])))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    guarded.forget()
    with pytest.raises((ValueError, OSError), match="last.weights.h5 cannot be read"):
        load_weights(model, path)  # it is another model's
    guarded()


def changed(members, **values):
    config = json.loads(members["config.json"])
    config["config"]["rpn"]["config"]["settings"]["config"].update(values)
    return {**members, "config.json": json.dumps(config).encode()}


def with_layer(members, **layer):
    """A backbone whose first convolution is another object."""
    config = json.loads(members["config.json"])
    layers = config["config"]["backbone"]["config"]["model"]["config"]["layers"]
    next(each for each in layers if each["class_name"] == "Conv2D").update(layer)
    return {**members, "config.json": json.dumps(config).encode()}


def with_neck(members, **neck):
    config = json.loads(members["config.json"])
    config["config"]["neck"][0].update(neck)
    return {**members, "config.json": json.dumps(config).encode()}


def test_states_of_random_layers_and_of_an_optimizer_are_no_weights(tmp_path):
    images = keras.Input((None, None, 3))
    maps = [keras.layers.Conv2D(2, 3, strides=4, padding="same")(images)]
    for _ in range(3):
        maps.append(keras.layers.AveragePooling2D(2)(keras.layers.Dropout(0.1)(maps[-1])))
    model = tiny(BackboneAdapter(keras.Model(images, maps)))
    model.compile("sgd", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "tiny.keras")
    assert len(load_detector(tmp_path / "tiny.keras").weights) == len(model.weights)


HOSTILE = {
    "claims a million channels": (
        lambda m: changed(m, channels=10**6), r"describes [\d,.]+ MiB of weights, but the file"
    ),
    "claims more": (lambda m: changed(m, channels=10**9), "`channels` must be a whole number"),
    "config null": (lambda m: {**m, "config.json": b"null"}, "expected an object. Received: None"),
    "config a number": (lambda m: {**m, "config.json": b"3"}, "expected an object. Received: 3"),
    "config deep": (lambda m: {**m, "config.json": b"[" * 10**5}, "nested too deeply"),
    "no config": (lambda m: {WEIGHTS: m[WEIGHTS]}, "must contain one config.json"),
    "no weights": (
        lambda m: {"config.json": m["config.json"]}, "must contain one model.weights.h5"
    ),
    "a file beside": (
        lambda m: {**m, "../../x.py": b"1"}, "contains ../../x.py, which no detector"
    ),
    "a function of os": (
        lambda m: with_layer(m, module="os", class_name="system"), "locate class 'system'"
    ),
    "another module": (
        lambda m: with_layer(m, module="this", registered_name="x"), "locate class 'Conv2D'"
    ),
    "a lambda": (
        lambda m: with_layer(
            m, class_name="Lambda", config={"function": {
                "class_name": "__lambda__", "config": {"code": "", "defaults": None}}},
        ), "[Ll]ambda"
    ),
    "a layer that is built later, at random": (
        lambda m: with_neck(m, build_config=[1]),
        "describes 9 arrays of weights, but the file of weights has 17"
    ),
    "another model": (
        lambda m: {**m, "config.json": keras.Sequential([keras.Input((2,))]).to_json().encode()},
        "is not a detector, but a Sequential"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, members, tmp_path, guarded):
    make, words = HOSTILE[name]
    path = tmp_path / "tiny.keras"
    path.write_bytes(zipped(make(members)))
    guarded.forget()
    with pytest.raises(ValueError, match=words) as raised:
        load_detector(path)
    assert str(raised.value).startswith(f"{path} cannot be loaded: ")
    guarded()


def test_a_bomb(members, tmp_path):
    path = tmp_path / "tiny.keras"
    config = members["config.json"] + b" " * 2**24
    path.write_bytes(zipped({**members, "config.json": config}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="claims to unpack to more than 16 times its size"):
        load_detector(path)


@pytest.mark.parametrize("suffix", [".keras", ""])
def test_values_that_are_not_finite_are_named(suffix, tmp_path):
    model = tiny()
    model.rpn.logits_conv.bias.assign([np.nan, 1.0, 2.0])
    path = tmp_path / f"tiny{suffix}"
    model.save(path) if suffix else model.save_to_preset(path)
    with pytest.raises(ValueError, match="tiny.*: .*bias has values that are not finite"):
        load_detector(path)


def test_arrays_that_claim_more_than_there_is(tmp_path):
    path = tmp_path / "model.weights.h5"
    for words, options in {
        "claims the shape": {"shape": (2**40,), "chunks": (1024,), "dtype": "f4"},
        "is stored in another file": {"shape": (4,), "dtype": "u1", "external": [("x", 0, 4)]},
        "is not an array of numbers": {"data": ["words"]},
        "compressed": {"shape": (64,), "dtype": "f4", "compression": "gzip"},
    }.items():
        with h5py.File(path, "w") as file:
            file.create_dataset("a", **options)
        with pytest.raises(ValueError, match=f"a {words}|a is {words}"):
            array_sizes(path)


@pytest.mark.parametrize("name", ["model.json", "last.weights.h5"])
def test_devices_and_fifos(name, members, tmp_path):
    (tmp_path / "model.json").write_bytes(members["config.json"])
    (tmp_path / "last.weights.h5").write_bytes(members[WEIGHTS])
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises((ValueError, OSError), match=name):
        load_detector(tmp_path)
