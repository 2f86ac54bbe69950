"""Several processes train as one; the ones that are left say who has gone."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from processes import cluster_config, environment, free_ports

from libra_keras import data
from libra_keras.data.batches import TrainingSource
from libra_keras.devices import peers
from libra_keras.devices.cluster import Share
from libra_keras.devices.peers import Peers

PROGRAM = Path(__file__).parent / "cluster_program.py"
MINUTE = 60


def start(log, arguments, **variables):
    command = list(map(str, [sys.executable, PROGRAM, *arguments]))
    with open(log, "wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment(**variables)
        )


def wait_for(path, processes):
    while not path.exists():
        assert all(process.poll() is None for process in processes), "a process has ended"
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_two_processes_make_the_updates_of_one_and_notice_a_death(tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    alone = start(tmp_path / "one.log", [one, 1])
    assert alone.wait() == 0, (tmp_path / "one.log").read_text(errors="replace")[-3000:]
    ports = free_ports(2)
    logs = [tmp_path / f"worker{i}.log" for i in (0, 1)]
    workers = [start(logs[i], [two, 100], TF_CONFIG=cluster_config(ports, i)) for i in (0, 1)]
    try:
        wait_for(Path(f"{two}.json"), workers)
        workers[1].send_signal(signal.SIGKILL)
        assert workers[0].wait(timeout=MINUTE) == 1
    finally:
        for worker in workers:
            worker.kill()
    assert f"Lost worker 1 (127.0.0.1:{ports[1]})" in logs[0].read_text(errors="replace")
    expected, found = np.load(one), np.load(two)
    assert found["shape"].tolist() == expected["shape"].tolist() == [3, 50, 4]
    for name in expected.files:
        apart = np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max()
        assert apart < 1e-5, name
    losses = [json.loads(Path(f"{path}.json").read_text()) for path in (one, two)]
    assert len(losses[0]) == 5
    for first, second in zip(*losses, strict=True):
        assert second == pytest.approx(first, rel=1e-5)


def test_a_configuration_that_is_none_is_refused():
    for text in (
        None,
        "",
        "{",
        "[]",
        '{"cluster": {}}',
        cluster_config([1, 2], 2),
        cluster_config([1, 2], -1),
    ):
        with pytest.raises(ValueError, match='TF_CONFIG must be JSON such as {"cluster"'):
            Peers(text)


def test_a_chief_comes_first():
    jobs = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    found = Peers(json.dumps({"cluster": jobs, "task": {"type": "worker", "index": 1}}))
    assert (found.workers, found.index) == (["a:1", "b:1", "c:1"], 2)
    # TensorFlow numbers the workers without the chief.
    assert found.named_in("remote target /job:worker/replica:0/task:0 while calling") == {1}
    assert found.named_in("/job:chief/replica:0/task:0, /job:worker/replica:0/task:1") == {0}


def test_the_shares_of_all_workers_are_the_batches_of_one_machine():
    source = TrainingSource(data.shapes(8), data.InputPolicy(160, 160), batch_size=4)
    shares = [Share(source, index, num_workers=2, num_replicas=2) for index in (0, 1)]
    joined = [share.sample(start + place) for start in (0, 2) for share in shares
              for place in (0, 1)]  # fmt: skip
    found = [int(sample[3]) for sample in joined]
    assert found == [int(source.sample(number)[3]) for number in range(8)]
    with pytest.raises(ValueError, match="3 devices of 2 workers cannot share 4 images"):
        Share(source, 0, num_workers=2, num_replicas=3)


def test_who_accepts_no_connection_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = [server.getsockname()[1], *free_ports(2)]
        assert Peers(cluster_config(ports, 2)).silent() == {1}  # not this one, and not the server


def test_a_watch_ends_the_process_unless_it_is_stopped(monkeypatch, capsys):
    ended = threading.Event()
    monkeypatch.setattr(peers, "INTERVAL", 0.01)
    monkeypatch.setattr(peers.os, "_exit", lambda status: ended.set())
    found = Peers(cluster_config(free_ports(2), 0))
    found.watch()
    assert ended.wait(MINUTE)
    found.stop_watching()
    assert "Lost worker 1 (127.0.0.1:" in capsys.readouterr().err
    ended.clear()
    found.watch()
    found.stop_watching()
    assert not ended.wait(0.3)
