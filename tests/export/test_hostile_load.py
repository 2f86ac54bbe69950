"""Sixteen clients and garbage: right answers to all that is good, flat memory, a server that lives.

`recipes/benchmarks/serving_load.py` sends the requests; it also runs against TensorFlow Serving.
"""

import json

import numpy as np
import pytest
from serving import RECIPES, check_same, need_serving, prediction_server, recipe

REQUESTS, CLIENTS = 1000, 16
MOST_GROWTH = 1.1  # of the memory from the first half of the requests to the second
pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark(monkeypatch):
    """The script, and the files that it sends."""
    need_serving()
    monkeypatch.syspath_prepend(str(RECIPES / "benchmarks"))
    return recipe("benchmarks/serving_load.py")


@pytest.fixture(scope="module")
def server(served_folder):
    need_serving()
    with prediction_server(served_folder) as (address, process):
        yield address, process


def test_all_is_answered_rightly(benchmark, server, served_model, record_property):
    address, process = server
    images = benchmark.hostile_images
    items = images.good_items() + images.large_items()
    client = benchmark.Client(address, "detector")
    expected = benchmark.lone_answers(client, items)
    for item in items:
        check_same(expected[item.name], served_model.detect(item.data, score_threshold=0.0))
    report = benchmark.load(address, "detector", process.pid, expected, REQUESTS, CLIENTS)
    record_property("load", json.dumps(report))
    assert report["wrong"] == []
    assert sum(report["requests"].values()) == REQUESTS
    assert report["requests"].keys() == {"good", "garbage", "mixed", "malformed"}
    memory = report["MiB in each quarter"]
    for figure in ("median", "most"):
        first, second, third, last = (quarter[figure] for quarter in memory)
        assert max(third, last) <= max(first, second) * MOST_GROWTH, memory
    assert process.poll() is None
    again = benchmark.lone_answers(client, items[:1])
    np.testing.assert_array_equal(*(a[items[0].name]["detection_boxes"] for a in (again, expected)))


def test_garbage_leaves_the_rows_beside_it_unchanged(benchmark, server):
    images, address = benchmark.hostile_images, server[0]
    client = benchmark.Client(address, "detector")
    good = images.good_items()[30:34]
    expected = benchmark.lone_answers(client, good)
    for item in images.garbage_items():
        request = benchmark.Request([good[0], item, good[1], item, good[2]])
        assert benchmark.wrongs(request, client.ask(request), expected) == []


def test_numbers_that_are_no_pixels(benchmark, server):
    import tensorflow as tf

    client = benchmark.Client(server[0], "detector")
    pixels = np.full((4, 40, 60, 3), 90, "float32")
    pixels[1, 2, 3, 0] = np.nan
    pixels[2, 39, 59, 2] = 256
    request = benchmark.Request(
        inputs={"images": tf.make_tensor_proto(pixels)}, signature="images_float"
    )
    found = client.ask(request)
    assert found["status"].tolist() == [0, 5, 5, 0]
    assert found["num_detections"][0] > 0 and not found["num_detections"][1:3].any()
    np.testing.assert_array_equal(found["detection_boxes"][0], found["detection_boxes"][3])
