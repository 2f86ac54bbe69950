"""Runs programs of the tests in processes of their own, each on a Keras backend of its choice."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGES = {"tensorflow": "tensorflow", "jax": "JAX", "torch": "PyTorch"}


def need(backend):
    """Skips the test if the package of `backend` is not installed; .ci/run looks for the words."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{PACKAGES[backend]} is not installed")


def run_on(backend, program, *arguments):
    """Runs a file of `tests` with `KERAS_BACKEND`; fails with its last words if it fails."""
    command = list(map(str, [sys.executable, TESTS / program, *arguments]))
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(KERAS_BACKEND=backend)
    )
    assert done.returncode == 0, f"on {backend}: {done.stderr[-3000:]}"


def environment(**variables):
    """Variables of a process that imports this package and what the tests import."""
    paths = [TESTS.parent, TESTS, TESTS / "support", os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, **own, **variables}


def cluster_config(ports, index):
    """`TF_CONFIG` of a worker on this machine."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
