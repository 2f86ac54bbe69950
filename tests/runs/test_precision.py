"""What is said of a CPU and its bfloat16, and which precision `auto` is."""

import re

import pytest

from libra_keras.runs import ModelConfig, TrainConfig, precision, resolve
from libra_keras.runs.precision import Machine, advice, automatic, units_of

# As Linux tells of the first of several CPUs.
CPUINFO = "processor\t: 0\nmodel name\t: {}\nflags\t\t: fpu vme {}\nbugs\t\t: amx_bf16\n\n"
AMX = Machine("tensorflow", "CPU", accelerates=False, cpu="AMX")


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (CPUINFO.format("Sapphire Rapids", "avx512_bf16 amx_bf16 amx_tile"), "AMX"),
        (CPUINFO.format("Zen 4", "avx512f avx512_bf16"), "AVX512-BF16"),
        (CPUINFO.format("with amx_bf16 in its name", "avx512f"), ""),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", None),  # of an ARM
        ("", None),
    ],
)
def test_what_a_cpu_has_for_bfloat16(text, units):
    assert units_of(text) == units


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CPUINFO.format("", "amx_bf16"), "this CPU has AMX, with which TensorFlow trained .* 2.6 "),
        (CPUINFO.format("", "avx512_bf16"), "has AVX512-BF16, with which a step .* 1.6 times"),
        (CPUINFO.format("", "avx2"), "this CPU has nothing for it"),
        (None, "whether this CPU gains is not known"),  # another system
    ],
)
def test_help_says_what_this_cpu_has(text, said, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.units_of_this_cpu.cache_clear()
    try:
        assert re.search(said, precision.of_this_cpu())
    finally:
        precision.units_of_this_cpu.cache_clear()


@pytest.mark.parametrize(
    ("machine", "policy"),
    [
        (AMX, "mixed_bfloat16"),
        (AMX._replace(cpu="AVX512-BF16"), "float32"),  # whose gain nobody has measured
        (AMX._replace(backend="jax"), "float32"),  # nor this one
        (AMX._replace(cpu=None), "float32"),
        (AMX._replace(device="NVIDIA T4"), "float32"),  # what its host has does not matter
        (Machine("torch", "NVIDIA H100", True, ""), "mixed_bfloat16"),
        (Machine("jax", "TPU v4", True, None), "mixed_bfloat16"),
    ],
)
def test_auto_is_what_pays_off(machine, policy, monkeypatch):
    assert automatic(machine) == policy
    monkeypatch.setattr(precision, "this_machine", lambda: machine)
    config = resolve(TrainConfig(model=ModelConfig(precision="auto")))
    assert config.model.precision == config.to_dict()["model"]["precision"] == policy


def test_a_large_gain_is_said_where_it_was_measured_and_is_not_had():
    resnet = 40_000_000
    said = advice("float32", resnet, "inference", AMX)
    assert "has AMX" in said and "--precision mixed_bfloat16, inference" in said and "2.5 " in said
    assert " 2.6 times as fast" in advice("float32", resnet, "training", AMX)
    assert advice("mixed_bfloat16", resnet, "training", AMX) is None
    assert advice("float32", 2_000_000, "training", AMX) is None  # a small one gains less
    for other in ({"backend": "torch"}, {"device": "NVIDIA H100"}, {"cpu": "AVX512-BF16"}):
        assert advice("float32", resnet, "training", AMX._replace(**other)) is None


def test_a_small_gain_is_not_worth_a_line(monkeypatch):
    monkeypatch.setitem(precision.GAINS, "training", 1.5)
    assert advice("float32", 40_000_000, "training", AMX) is None
    assert automatic(AMX) == "float32"
