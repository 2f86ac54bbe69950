"""What a machine with GPUs is told and asked for, played with the answers that TensorFlow gives."""

import sys
from types import SimpleNamespace

import keras
import pytest

from libra_keras.devices import TooLate, hardware

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="asks TensorFlow for its GPUs"
)


@pytest.fixture
def gpus(monkeypatch):
    """Three GPUs as TensorFlow lists them, and what it is then told to see."""
    import tensorflow as tf

    found = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(3)]
    seen = []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: found)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *args: seen.append(args))
    return found, seen


@on_tensorflow
@pytest.mark.parametrize(("count", "told"), [(1, 1), (2, 2), (3, None), (8, None)])
def test_gpus_that_a_run_does_not_use_are_left_to_others(gpus, count, told):
    found, seen = gpus
    hardware.leave_gpus(count)
    assert seen == ([] if told is None else [(found[:told], "GPU")])


@on_tensorflow
def test_a_program_that_has_computed_keeps_its_gpus(gpus, monkeypatch):
    import tensorflow as tf

    def refuse(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(TooLate, match="too late to leave 2 of 3 GPUs to other programs"):
        hardware.leave_gpus(1)
    hardware.leave_gpus(3)


@on_tensorflow
def test_the_name_is_that_of_the_first_gpu(gpus, monkeypatch):
    import tensorflow as tf

    details = {gpus[0][0]: {"device_name": "NVIDIA H100"}}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)
    assert hardware.device_name() == "NVIDIA H100"
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: {})
    assert hardware.device_name() == "GPU:0"


@on_tensorflow
@pytest.mark.parametrize(
    ("details", "accelerates"),
    [
        ({"compute_capability": (7, 5)}, False),
        ({"compute_capability": (8, 0)}, True),
        ({"compute_capability": (10, 0)}, True),
        ({"device_name": "METAL"}, False),
    ],
)
def test_gpus_that_multiply_bfloat16(gpus, monkeypatch, details, accelerates):
    import tensorflow as tf

    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    assert hardware.accelerates_bfloat16() is accelerates


@pytest.mark.parametrize(
    ("device", "accelerates"),
    [
        ({"platform": "tpu"}, True),
        ({"platform": "cpu"}, False),
        ({"platform": "gpu", "compute_capability": "7.5"}, False),
        ({"platform": "gpu", "compute_capability": "12.0"}, True),  # which "8.0" follows as a text
        ({"platform": "gpu", "compute_capability": "gfx90a"}, False),  # AMD's
    ],
)
def test_what_jax_finds_multiplies_bfloat16(monkeypatch, device, accelerates):
    jax = SimpleNamespace(devices=lambda: [SimpleNamespace(**device)])
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert hardware.accelerates_bfloat16() is accelerates


@pytest.mark.parametrize(
    ("cuda", "capability", "accelerates"),
    [(None, (9, 4), False), ("12.8", (7, 5), False), ("12.8", (9, 0), True)],  # `None`: AMD's
)
def test_what_torch_finds_multiplies_bfloat16(monkeypatch, cuda, capability, accelerates):
    torch = SimpleNamespace(version=SimpleNamespace(cuda=cuda))
    found = {"is_available": lambda: True, "get_device_capability": lambda: capability}
    torch.cuda = SimpleNamespace(**found)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert hardware.accelerates_bfloat16() is accelerates


def test_a_gpu_that_is_not_found_is_worth_a_warning(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "NVIDIA_GPU", tmp_path / "nvidia0")
    assert hardware.missing_gpu_advice("CPU") is None
    (tmp_path / "nvidia0").touch()
    assert hardware.missing_gpu_advice("NVIDIA H100") is None
    advice = hardware.missing_gpu_advice("CPU")
    assert keras.backend.backend() in advice and "install" in advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert hardware.missing_gpu_advice("CPU") is None
