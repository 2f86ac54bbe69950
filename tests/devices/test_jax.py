"""Two devices of JAX make the update of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment, need

PROGRAM = Path(__file__).parent / "jax_program.py"


@pytest.mark.slow
def test_two_devices_make_the_update_of_one():
    need("jax")
    two = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**two))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == [1, 2]
    one, two = result["losses"]
    assert set(one) >= {"loss", "rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss"}
    for name, (value,) in one.items():
        assert two[name][0] == pytest.approx(value, rel=1e-5), name
    assert result["apart"] < 1e-5
    assert result["shape"] == [3, 50, 4] and result["scores"] < 1e-5
