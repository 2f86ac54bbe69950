"""What a run computes on: the devices of its config, and what is said of them."""

import sys

import keras

from libra_keras.devices.cluster import Cluster
from libra_keras.devices.hardware import device_name, leave_gpus, missing_gpu_advice
from libra_keras.devices.strategies import Devices, devices_of, devices_of_machine
from libra_keras.runs.config import DeviceConfig


def chosen(config: DeviceConfig, model: keras.Model | None = None) -> Devices:
    """Returns the devices that a run asks for, to be entered before anything is built.

    Args:
        config: `DeviceConfig`.
        model: detector that was built already, on devices that it keeps, or `None`.

    Raises:
        ValueError: if they are not there, or the backend cannot train on several.
        RuntimeError: if it is too late for them: the backend has started with others.

    Example:

    >>> from libra_keras.runs import DeviceConfig
    >>> from libra_keras.runs.machine import chosen
    >>> chosen(DeviceConfig()).num
    1
    """
    if model is not None:
        return devices_of(model)
    if config.cluster:
        return Cluster()
    if config.count != "all":
        leave_gpus(config.count or 1)
    return devices_of_machine(config.count)


def check_batch(batch: int, devices: Devices) -> None:
    """Checks that devices can share a batch evenly, and says which they are.

    Args:
        batch: images of a step.
        devices: `Devices`, entered.

    Raises:
        ValueError: if they cannot.

    Example:

    >>> from libra_keras.devices.strategies import Replicas
    >>> from libra_keras.runs.machine import check_batch
    >>> check_batch(4, Replicas(["GPU:0", "GPU:1"]))
    2 devices, 2 images of every batch on each: GPU:0, GPU:1
    """
    if batch % devices.num:
        raise ValueError(
            f"--batch {batch} cannot be split evenly over {devices.num} devices. It is the "
            "number of images of a step over all of them"
        )
    if devices.num > 1:
        each = batch // devices.num
        names = ", ".join(devices.names)
        print(f"{devices.num} devices, {each} images of every batch on each: {names}", flush=True)


def describe() -> str:
    """Returns the name of what a run computes on; warns if that could have been a GPU.

    Example:

    >>> from libra_keras.runs.machine import describe
    >>> isinstance(describe(), str)
    True
    """
    device = device_name()
    if advice := missing_gpu_advice(device):
        print(f"Warning: {advice}", file=sys.stderr, flush=True)
    return device
