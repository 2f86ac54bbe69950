"""What writes files is there before any backend is, and without one."""

import subprocess
import sys

from processes import environment

PROGRAM = """
import sys
from libra_keras.files import atomic, locks, replacing
heavy = {"keras", "tensorflow", "jax", "torch", "numpy"}
print(sorted(heavy & set(sys.modules)))
"""


def test_no_backend_is_imported():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "[]"
