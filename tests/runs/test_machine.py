"""The devices of a run, and what they share."""

import pytest

from libra_keras.devices.strategies import Replicas
from libra_keras.runs.machine import check_batch


def test_devices_that_cannot_share_a_batch():
    with pytest.raises(ValueError, match="--batch 3 cannot be split evenly over 2 devices"):
        check_batch(3, Replicas(["GPU:0", "GPU:1"]))
