"""The other machines of a cluster: where they are, and whether they are still there."""

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterable

PATIENCE = 3.0  # seconds in which a worker that lives accepts a connection
INTERVAL = 5.0  # seconds between two looks at the others
MISSES = 8  # looks that a worker may miss: TensorFlow notices most losses earlier


class WorkerLost(ConnectionError):
    """Raised on the workers that are left when another one has ended or cannot be reached.

    Example:

    >>> from libra_keras.devices import WorkerLost
    >>> issubclass(WorkerLost, OSError)
    True
    """


class Peers:
    """The addresses of all workers of a `TF_CONFIG`, the chief first, and the index of this one."""

    def __init__(self, config: str | None):
        try:
            self._read(json.loads(config or "{}"))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(
                'TF_CONFIG must be JSON such as {"cluster": {"worker": ["host0:2222", '
                '"host1:2222"]}, "task": {"type": "worker", "index": 0}}. '
                f"Received: {config}"
            ) from None
        self._leaving = threading.Event()

    def _read(self, config: dict) -> None:
        """Takes what is needed of a configuration; one that is none raises one error or another."""
        jobs, task = config["cluster"], config["task"]
        self.workers = [*jobs.get("chief", []), *jobs["worker"]]
        self._first = {"chief": 0, "worker": len(jobs.get("chief", []))}
        self.index = self._first[task["type"]] + int(task["index"])
        ports = [int(worker.rpartition(":")[2]) for worker in self.workers]
        if not 0 <= self.index < len(ports):
            raise ValueError

    def silent(self) -> set[int]:
        """Returns the set of the others that accept no connection, by their indices."""
        found = set()
        for index, address in enumerate(self.workers):
            host, _, port = address.rpartition(":")
            try:
                if index != self.index:
                    socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
            except OSError:
                found.add(index)
        return found

    def named_in(self, text: str) -> set[int]:
        """Returns the set of the others that an error of TensorFlow names."""
        tasks = re.findall(r"/job:(\w+)/replica:\d+/task:(\d+)", text)
        named = {self._first[job] + int(task) for job, task in tasks if job in self._first}
        return named - {self.index}

    def message(self, lost: Iterable[int]) -> str:
        """Says what the loss of some workers means; of none, if it is not known which."""
        names = [f"worker {index} ({self.workers[index]})" for index in sorted(lost)]
        return (
            f"Lost {' and '.join(names) or 'a worker'}: it has ended or cannot be reached, and a "
            "cluster trains only with all of its workers. Start them all again: the run "
            "continues from where it was last saved"
        )

    def watch(self) -> None:
        """Ends this process if another one is lost outside of training steps, in which TensorFlow
        notices by itself."""
        self._leaving.clear()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop_watching(self) -> None:
        """From here on the others may leave."""
        self._leaving.set()

    def _watch(self) -> None:
        misses = 0
        while not self._leaving.wait(INTERVAL):
            lost = self.silent()
            misses = misses + 1 if lost else 0
            if misses == MISSES and not self._leaving.is_set():
                print(f"\n{self.message(lost)}", file=sys.stderr, flush=True)
                os._exit(1)  # the main thread may be anywhere; files are written whole or not
