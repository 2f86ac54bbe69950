"""A stand-in for TensorFlow Serving's REST port: the row format of its documentation, no more.

Of `POST /v1/models/NAME:predict` it takes `{"instances": [...]}` with, in each instance, every
input by name, or the value itself where a signature has one input; `{"b64": text}` is bytes. The
answer is `{"predictions": [...]}` with every output by name in each row, bytes as `{"b64": text}`
where the output's name ends in `_bytes` and as text elsewhere; or `{"error": words}` and code 400.
"""

import base64
import contextlib
import http.server
import json
import threading

import numpy as np


@contextlib.contextmanager
def rest_server(name, signature):
    """Serves one signature in this process; gives the URL."""
    import tensorflow as tf

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != f"/v1/models/{name}:predict":
                return self._answer(404, {"error": f"Malformed request: POST {self.path}"})
            try:
                self._answer(200, predict(signature, json.loads(body)))
            except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
                self._answer(400, {"error": str(error)})

        def _answer(self, code, content):
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def predict(signature, body):
    """Runs a signature on the instances of a request; returns the answer's content."""
    import tensorflow as tf

    inputs = signature.structured_input_signature[1]
    instances = body["instances"]
    if len(inputs) == 1:
        (only,) = inputs
        instances = [{only: each} if _is_value(each) else each for each in instances]
    for each in instances:
        if _names(each) != set(inputs):
            raise ValueError(f"An instance must have the inputs {sorted(inputs)}")
    given = {
        key: tf.constant([_value(each[key]) for each in instances], spec.dtype)
        for key, spec in inputs.items()
    }
    found = {key: value.numpy() for key, value in signature(**given).items()}
    rows = range(len(instances))
    return {"predictions": [{k: _shown(k, v[row]) for k, v in found.items()} for row in rows]}


def _is_value(instance):
    return not isinstance(instance, dict) or set(instance) == {"b64"}


def _names(instance):
    return set(instance) if isinstance(instance, dict) else set()


def _value(value):
    if _names(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    return value


def _shown(name, value):
    if isinstance(value, np.ndarray):
        return [_shown(name, each) for each in value]
    if isinstance(value, bytes):
        is_binary = name.endswith("_bytes")
        return {"b64": base64.b64encode(value).decode()} if is_binary else value.decode()
    return value.item()
