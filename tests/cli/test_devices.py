"""`libra-keras train` on several devices and on several machines, here logical and loopback."""

import csv
import json
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from processes import cluster_config, environment, free_ports

from libra_keras.cli import main

MINUTE = 60
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's"
)
TINY = "--train-split 8 --val-split 3 --batch 4 --short-side 64 --long-side 64".split()
TWO_CPUS = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from libra_keras.cli import main
sys.exit(main(sys.argv[1:]))
"""


def command(model, folder, *more):
    return ["train", "shapes", "--model", model, *TINY, "--to", str(folder), *more]


def start(code, log, arguments, **variables):
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, *code, *arguments], stdout=file, stderr=subprocess.STDOUT,
            env=environment(**variables), cwd=log.parent,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "99"], "devices: this machine has"),
        (["--devices", "2", "--cluster"], "--cluster takes all devices"),
        (["--cluster"], "TF_CONFIG must be JSON"),
    ],
)
@on_tensorflow
def test_devices_that_are_not_there(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert main(command("rpn_small", tmp_path / "run", *arguments)) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@on_tensorflow
def test_two_devices_train_to_their_metrics(tmp_path):
    """Held for a while on the way, as schedulers and terminals do."""
    run, log = tmp_path / "run", tmp_path / "log"
    two = ["--devices", "2", "--epochs", "1", "--ema", "0.5"]
    process = start(["-c", TWO_CPUS], log, command("libra_retinanet_small", run, *two))
    while process.poll() is None and "Epoch 1" not in log.read_text(errors="replace"):
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0, log.read_text(errors="replace")[-3000:]
    assert "2 devices, 2 images of every batch on each: CPU:0, CPU:1" in log.read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["trained_steps"] == 2 and metrics["averaged"]
    model = json.loads((run / "model.json").read_text())
    assert model["config"]["backbone"]["config"]["batch_norm"] == "synchronized"


def batches_saved(run):
    try:
        return json.loads((run / "checkpoints" / "state.json").read_text())["batches"]
    except FileNotFoundError:
        return 0


def losses_of(run):
    with (run / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@on_tensorflow
def test_a_cluster_goes_on_after_a_death_and_ends_as_one_machine(tmp_path):
    run, alone = tmp_path / "run", tmp_path / "alone"
    options = "--epochs 10 --eval-every 0 --save-every 1 --learning-rate 0.0003".split()
    module = ["-m", "libra_keras"]

    def workers(attempt):
        ports, arguments = free_ports(2), command("rpn_small", run, *options, "--cluster")
        logs = [tmp_path / f"{attempt}-{i}.log" for i in (0, 1)]
        return logs, [
            start(module, logs[i], arguments, TF_CONFIG=cluster_config(ports, i)) for i in (0, 1)
        ]

    def wait_for(batches):
        while batches_saved(run) < batches:
            assert all(each.poll() is None for each in processes), logs[0].read_text()[-3000:]
            time.sleep(0.05)

    single = start(module, tmp_path / "alone.log", command("rpn_small", alone, *options))
    assert single.wait() == 0, (tmp_path / "alone.log").read_text(errors="replace")[-3000:]
    logs, processes = workers("first")
    try:
        wait_for(3)
        processes[1].send_signal(signal.SIGKILL)
        assert processes[0].wait(timeout=MINUTE) == 1
    finally:
        for each in processes:
            each.kill()
    assert "Lost worker 1 (127.0.0.1:" in logs[0].read_text(errors="replace")
    assert 3 <= (saved := batches_saved(run)) < 20
    logs, processes = workers("second")
    try:  # a scheduler tells all of them to stop
        wait_for(saved + 2)
        for each in processes[::-1]:
            each.send_signal(signal.SIGTERM)
        statuses = [each.wait(timeout=MINUTE) for each in processes]
    finally:
        for each in processes:
            each.kill()
    assert statuses == [128 + signal.SIGTERM, 1]
    assert "Interrupted. The run is saved at epoch" in logs[0].read_text(errors="replace")
    assert "Lost worker 0" in logs[1].read_text(errors="replace")
    logs, processes = workers("third")
    try:
        statuses = [each.wait() for each in processes]
    finally:
        for each in processes:
            each.kill()
    assert statuses == [0, 0], [log.read_text(errors="replace")[-3000:] for log in logs]
    assert f"Continuing {run} at epoch" in logs[0].read_text(errors="replace")
    assert json.loads((run / "metrics.json").read_text())["trained_steps"] == 20
    ours, expected = (losses_of(folder) for folder in (run, alone))
    assert len(ours) == 10
    # Statistics of synchronised batch normalisation are rounded otherwise, and that grows.
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
