"""Where a model is trained: on which devices and machines, and how alike from run to run.

Importing this starts no backend, so that all of it can still be chosen.
"""

from libra_keras.devices.cluster import Cluster
from libra_keras.devices.determinism import make_deterministic
from libra_keras.devices.hardware import (
    TooLate,
    accelerates_bfloat16,
    device_name,
    leave_gpus,
    missing_gpu_advice,
)
from libra_keras.devices.peers import WorkerLost
from libra_keras.devices.strategies import (
    Devices,
    Replicas,
    Shards,
    devices_of,
    devices_of_machine,
)
from libra_keras.registration import register_classes

__all__ = [
    "Cluster",
    "Devices",
    "Replicas",
    "Shards",
    "TooLate",
    "WorkerLost",
    "accelerates_bfloat16",
    "device_name",
    "devices_of",
    "devices_of_machine",
    "leave_gpus",
    "make_deterministic",
    "missing_gpu_advice",
]

register_classes()
