"""What layers compute with: which precisions there are, and which one pays off on this machine.

The help says what this CPU has, so importing this starts no backend.
"""

import functools
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "mixed_bfloat16"
POLICIES = (FLOAT32, BFLOAT16, "mixed_float16")
CHOICES = (*POLICIES, AUTO)
CPUINFO = Path("/proc/cpuinfo")
UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}  # flags of x86 CPUs, the faster first
# How many times as fast as float32 mixed_bfloat16 was with AMX; README.md says how this was
# measured. With AVX512-BF16, one training step was timed: too little to recommend it by itself.
GAINS = {"training": 2.6, "inference": 2.5}
OTHERS = 1.6
WORTH_TELLING = 1.5
LARGE = 20_000_000  # weights: smaller detectors gain less, the small ones 1.3 and nothing


class Machine(NamedTuple):
    """What decides how fast bfloat16 is."""

    backend: str
    device: str  # of `device_name`
    accelerates: bool  # of `accelerates_bfloat16`
    cpu: str | None  # of `units_of`

    def gain(self, use: str) -> float | None:
        """Returns how many times as fast bfloat16 was in `use`; `None` if that was not measured."""
        is_measured = (self.backend, self.device, self.cpu) == ("tensorflow", "CPU", "AMX")
        return GAINS[use] if is_measured else None


def units_of(cpuinfo: str) -> str | None:
    """Returns what an x86 CPU computes bfloat16 with, according to `/proc/cpuinfo` of Linux;
    `""` if it has nothing for it, `None` if that is not known."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if found is None:
        return None
    flags = found[1].split()
    return next((name for flag, name in UNITS.items() if flag in flags), "")


@functools.cache
def units_of_this_cpu() -> str | None:
    """Returns the `units_of` this machine's CPU."""
    try:
        with CPUINFO.open() as file:  # its first entry: machines with hundreds take long to list
            return units_of(next((line for line in file if line.startswith("flags")), ""))
    except OSError:  # not Linux
        return None


def of_this_cpu() -> str:
    """Returns what the help says about this machine's CPU."""
    units = units_of_this_cpu()
    if units == "AMX":
        gain = f"{GAINS['training']} times as fast, and detected {GAINS['inference']} times as fast"
        return f"this CPU has AMX, with which TensorFlow trained a ResNet-50 detector {gain}"
    if units:
        return f"this CPU has {units}, with which a step of a ResNet-50 was {OTHERS} times as fast"
    return "whether this CPU gains is not known" if units is None else "this CPU has nothing for it"


def this_machine() -> Machine:
    """Returns the backend and what it computes on; starts the backend."""
    import keras

    from libra_keras.devices import accelerates_bfloat16, device_name

    backend = keras.backend.backend()
    return Machine(backend, device_name(), accelerates_bfloat16(), units_of_this_cpu())


def automatic(machine: Machine) -> str:
    """Returns the policy that `auto` stands for."""
    gain = machine.gain("training") or 1
    return BFLOAT16 if machine.accelerates or gain > WORTH_TELLING else FLOAT32


def checked(precision: str | None) -> str | None:
    """Returns a precision that exists, or `None`."""
    if precision not in (None, *CHOICES):
        raise ValueError(
            f"`precision` must be one of {', '.join(CHOICES)}. Received: {precision!r:.80}"
        )
    return precision


def policy_of(precision: str | None) -> str | None:
    """Returns the policy that a precision stands for on this machine; `None` is left alone."""
    return automatic(this_machine()) if precision == AUTO else precision


def advice(policy: str, weights: int, use: str, machine: Machine) -> str | None:
    """Returns what to say where a detector of so many weights would be much faster in `use` with
    another policy, else `None`."""
    gain = machine.gain(use) or 1
    if policy != FLOAT32 or weights < LARGE or gain <= WORTH_TELLING:
        return None
    return (
        f"This CPU has {machine.cpu}: with --precision {BFLOAT16}, {use} of a ResNet-50 detector "
        f"was {gain} times as fast in our measurements (libra_keras/runs/README.md)"
    )


def tell(detector: Any, use: str) -> None:
    """Prints the `advice` for a detector on this machine, if there is any."""
    if said := advice(detector.dtype_policy.name, detector.count_params(), use, this_machine()):
        print(said, file=sys.stderr, flush=True)
