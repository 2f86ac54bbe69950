"""Tests a served detector with many clients, and garbage among their images.

    python serving_load.py --grpc localhost:8500 --model detector --pid 1234

The server is TensorFlow Serving, or any that speaks its PredictionService, with a folder that
`libra-keras export` wrote; `--pid` is its process, whose memory is watched (Linux). Each good image
is first sent alone, without other load; under load it must get the same answer, alone or in a
batch, beside good images or garbage. One request in twenty is bad: files that are empty, cut off,
not images or far too large, and requests that do not fit the signature. Exits with 1 if an answer
was wrong. Requires `pip install '.[serving]'`; the images are drawn.
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import queue
import statistics
import sys
import threading
import time
from pathlib import Path

import grpc
import hostile_images
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SECONDS = 120  # until an answer is given up
PIXELS, SCORES = 0.01, 1e-4  # how far an answer may be from the one that was given alone
BAD_EVERY = 20  # requests
LARGE_EVERY = 80
MIB = 2**20


@dataclasses.dataclass
class Request:
    """Images that are sent together, or `inputs` that no signature takes."""

    items: list = ()
    inputs: dict = None
    signature: str = "serving_default"

    @property
    def kind(self):
        """What the report counts it as."""
        if self.inputs is not None:
            return "malformed"
        bad = sum(item.status > 0 for item in self.items)
        return "good" if not bad else "garbage" if bad == len(self.items) else "mixed"

    def message(self, model):
        """The request as the protocol has it."""
        message = predict_pb2.PredictRequest()
        message.model_spec.name = model
        message.model_spec.signature_name = self.signature
        images = [item.data for item in self.items]
        inputs = self.inputs
        if inputs is None:
            inputs = {"image_bytes": tf.make_tensor_proto(images, "string", [len(images)])}
        for name, value in inputs.items():
            message.inputs[name].CopyFrom(value)
        return message


def malformed_requests():
    """Requests that a server must refuse as a whole."""
    proto = tf.make_tensor_proto
    one = proto([b"image"], "string", [1])
    negative = proto([b"image"], "string", [1])
    negative.tensor_shape.dim[0].size = -7
    default = [
        {"image_bytes": proto(np.zeros((1, 8, 8, 3), "uint8"))},
        {"image_bytes": proto(np.zeros(3, "float32"))},
        {"image_bytes": proto(b"image", "string", [])},
        {"image_bytes": proto([[b"image"]], "string", [1, 1])},
        {"image_bytes": negative},
        {"image": one},
        {"image_bytes": one, "more": one},
        {},
    ]
    pixels = [
        ("images", np.zeros((8, 8, 3), "uint8")),
        ("images", np.zeros((1, 8, 8, 4), "uint8")),
        ("images", np.zeros((1, 8, 8, 3), "float32")),
        ("images_float", np.zeros((1, 8, 8, 3), "uint8")),
        ("images_float", np.zeros((1, 8, 8), "float32")),
    ]
    requests = [Request(inputs=inputs) for inputs in default]
    requests += [Request(inputs={"images": proto(value)}, signature=s) for s, value in pixels]
    return [*requests, Request(inputs={"image_bytes": one}, signature="none")]


def bad_requests(good):
    """Endless: garbage alone, garbage between two good images, and what fits no signature."""
    garbage = itertools.cycle(hostile_images.garbage_items())
    malformed = itertools.cycle(malformed_requests())
    while True:
        yield Request([next(garbage)])
        yield next(malformed)
        yield Request([next(good), next(garbage), next(good)])


def plan(num):
    """`num` requests; both halves have as many large images and as much garbage."""
    good = itertools.cycle(hostile_images.good_items())
    large = itertools.cycle(hostile_images.large_items())
    bad = bad_requests(good)
    requests = []
    for i in range(num):
        if i % BAD_EVERY == BAD_EVERY - 1:
            requests.append(next(bad))
        elif i % LARGE_EVERY == LARGE_EVERY // 2:
            requests.append(Request([next(large)]))
        else:
            requests.append(Request([next(good) for _ in range(2 if i % 10 == 0 else 1)]))
    return requests


class Client:
    """A connection to the server."""

    def __init__(self, address, model):
        self.model = model
        # Without a pool of its own each client would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(address, options)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def ask(self, request):
        """The outputs as arrays, or the code and the words of the refusal."""
        try:
            response = self.stub.Predict(request.message(self.model), timeout=SECONDS)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


def lone_answers(client, items):
    """What each image gets when it is sent alone; a dict by name.

    Every signature is called before: what TensorFlow makes for the first call of a signature stays
    in memory, more than 100 MiB.
    """
    for request in malformed_requests():
        client.ask(request)
    answers = {}
    for item in items:
        found = client.ask(Request([item]))
        if not isinstance(found, dict):
            raise SystemExit(f"{item.name}: {' '.join(found)}")
        answers[item.name] = {key: values[0] for key, values in found.items()}
    return answers


def wrongs(request, found, expected):
    """Says what is wrong with an answer: a list of sentences."""
    if request.inputs is not None:
        refused = isinstance(found, tuple) and found[0] == "INVALID_ARGUMENT"
        given = {name: str(value)[:60] for name, value in request.inputs.items()}
        return [] if refused else [f"{request.signature} {given}: {str(found)[:200]}"]
    if isinstance(found, tuple):
        return [f"{[item.name for item in request.items]}: {found}"]
    rows = [{key: values[i] for key, values in found.items()} for i in range(len(request.items))]
    pairs = zip(request.items, rows, strict=True)
    texts = [difference(item, row, expected.get(item.name)) for item, row in pairs]
    return [text for text in texts if text]


def difference(item, row, expected):
    """Says how the answer for one image differs from the expected one, or nothing."""
    status, count = int(row["status"]), int(row["num_detections"])
    if item.status:
        right = status == item.status and count == 0 and not row["detection_scores"].any()
        return None if right else f"{item.name}: status {status}, {count} detections"
    if status or count != expected["num_detections"]:
        return f"{item.name}: status {status}, {count} of {expected['num_detections']} detections"
    limits = {"detection_boxes": PIXELS, "detection_scores": SCORES, "detection_classes": 0}
    for key, limit in limits.items():
        error = np.abs(row[key] - expected[key]).max(initial=0)
        if not error <= limit:
            return f"{item.name}: {key} differ by {error}"
    return None


class Memory:
    """Samples the resident memory of a process, beside how many requests were answered."""

    def __init__(self, pid):
        self.file = Path(f"/proc/{pid}/statm")
        self.samples, self.answered, self.ended = [], 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.ended.wait(0.05):
            pages = int(self.file.read_text().split()[1])
            self.samples.append((self.answered, pages * 4096 / MIB))

    def quarters(self, num):
        """Medians and largest values in MiB while each quarter of `num` requests was answered."""
        parts = [[], [], [], []]
        for answered, size in self.samples:
            parts[min(answered * 4 // num, 3)].append(size)
        return [
            {"median": round(statistics.median(part or [0])), "most": round(max(part, default=0))}
            for part in parts
        ]


def load(address, model, pid, expected, num=1000, clients=16):
    """Sends `num` requests from many threads at once.

    Args:
        address: of the server, "HOST:PORT".
        model: name that it is served under.
        pid: of the server's process, or None.
        expected: dict by image, as returned by `lone_answers`.
        num: int, requests.
        clients: int, threads with a connection each.

    Returns:
        Dict of figures, with a list "wrong" of sentences.
    """
    requests = queue.SimpleQueue()
    kinds, wrong, seconds = {}, [], []
    for request in plan(num):
        requests.put(request)
        kinds[request.kind] = kinds.get(request.kind, 0) + 1
    memory = Memory(pid) if pid else None

    def work():
        client = Client(address, model)
        while True:
            try:
                request = requests.get_nowait()
            except queue.Empty:
                return
            start = time.perf_counter()
            found = client.ask(request)
            seconds.append(time.perf_counter() - start)
            wrong.extend(wrongs(request, found, expected))
            if memory:
                memory.answered += 1  # may miss one now and then

    if memory:
        memory.thread.start()
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(work) for _ in range(clients)]:
            done.result()
    taken = time.perf_counter() - start
    if memory:
        memory.ended.set()
    return {
        "requests": kinds,
        "wrong": wrong,
        "seconds": round(taken, 1),
        "requests per second": round(num / taken, 1),
        "median latency in ms": round(statistics.median(seconds) * 1000),
        "MiB in each quarter": memory.quarters(num) if memory else None,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grpc", metavar="HOST:PORT", default="localhost:8500")
    parser.add_argument("--model", default="detector", help="name of the served model")
    parser.add_argument("--pid", type=int, help="process id of the server, to watch its memory")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    args = parser.parse_args()
    items = hostile_images.good_items() + hostile_images.large_items()
    expected = lone_answers(Client(args.grpc, args.model), items)
    report = load(args.grpc, args.model, args.pid, expected, args.requests, args.clients)
    for name, value in report.items():
        print(f"{name}: {value}")
    return int(bool(report["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
