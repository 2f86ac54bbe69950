"""Gets the objects in image files from a served detector: a client to copy and adapt.

The server is TensorFlow Serving with a folder that `libra-keras export` wrote, started as
libra_keras/export/README.md says. This file does not require `libra_keras`; over REST it requires
only Python:

    python serve_client.py --rest http://localhost:8501 --model detector a.jpg b.png
    python serve_client.py --grpc localhost:8500 --model detector a.jpg b.png

gRPC requires `pip install tensorflow-serving-api`. The body of a REST request can be printed, and
sent by other programs:

    python serve_client.py --print-rest-body - a.jpg |
        curl -d @- http://localhost:8501/v1/models/detector:predict

Files are sent as they are, JPEG or PNG of any size. Boxes are x1, y1, x2, y2 in pixels of the file.
The exit status is 1 if an image was refused or a file not read, 2 if the server was not reached or
refused all.
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

INPUT = "image_bytes"
OUTPUTS = {  # the signature's outputs, by the names that `detections` gives them
    "boxes": "detection_boxes",
    "scores": "detection_scores",
    "classes": "detection_classes",
    "names": "detection_class_names",
}
STATUS = {  # as `assets.extra/detector.json` of the export has them
    1: "no bytes",
    2: "neither JPEG nor PNG",
    3: "more pixels than this detector takes",
    4: "damaged: cannot be decoded",
    5: "pixels that are not numbers from 0 to 255",
}
SECONDS = 60  # until a server that does not answer is given up


def rest_body(images):
    """The body of a REST request in Serving's row format.

    Args:
        images: list of the bytes of JPEG or PNG files.
    """
    coded = [base64.b64encode(image).decode() for image in images]
    return {"instances": [{INPUT: {"b64": text}} for text in coded]}


def ask_rest(url, model, images):
    """Sends images to a server's REST port.

    Args:
        url: of the server, as "http://localhost:8501".
        model: name of the served model.
        images: list of the bytes of JPEG or PNG files.

    Returns:
        List of dicts, one an image, as `detections` makes them.

    Raises:
        OSError: if the server is not reached, or refuses the request; then with its words.
    """
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/models/{model}:predict",
        data=json.dumps(rest_body(images)).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            rows = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        words = error.read().decode(errors="replace")
        raise OSError(f"{request.full_url}: {error}: {words}") from error
    return [detections(row) for row in rows]


def ask_grpc(address, model, images):
    """Sends images to a server's gRPC port; arguments and result as for `ask_rest`."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(images, "string", [len(images)]))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = stub.Predict(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise OSError(f"{address}: {error.code().name}: {error.details()}") from error
    arrays = {key: tf.make_ndarray(value) for key, value in response.outputs.items()}
    rows = [{key: array[i].tolist() for key, array in arrays.items()} for i in range(len(images))]
    return [detections(row) for row in rows]


def detections(row):
    """What was found in one image, without the padding to the most detections.

    Args:
        row: dict of the signature's outputs for one image.

    Returns:
        Dict of the lists "boxes", "scores", "classes" (counted from 0) and "names", best first,
        and of "status": 0, or a key of `STATUS`.
    """
    count = int(row["num_detections"])
    found = {key: list(row[output])[:count] for key, output in OUTPUTS.items()}
    names = [name.decode() if isinstance(name, bytes) else name for name in found["names"]]
    return {**found, "names": names, "status": int(row["status"])}


def read(files):
    """Reads files; says which cannot be read.

    Returns:
        The files that were read, list of their bytes, and how many were not.
    """
    names, images = [], []
    for file in files:
        try:
            images.append(Path(file).read_bytes())
            names.append(file)
        except OSError as error:
            print(f"{file}: not read: {error.strerror}", file=sys.stderr)
    return names, images, len(files) - len(images)


def show(file, found):
    """Prints what was found in a file."""
    if found["status"]:
        print(f"{file}: refused: {STATUS.get(found['status'], found['status'])}")
        return
    print(f"{file}: {len(found['boxes'])} objects")
    for box, score, name in zip(found["boxes"], found["scores"], found["names"], strict=True):
        print(f"  {score:.3f}  {name:20} " + " ".join(f"{side:8.1f}" for side in box))


def write_body(images, file):
    """Writes the body of a REST request to a file, or for "-" to the output."""
    text = json.dumps(rest_body(images))
    if file == "-":
        print(text)
    else:
        Path(file).write_text(text)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--grpc", metavar="HOST:PORT", help="TensorFlow Serving uses port 8500")
    way.add_argument("--rest", metavar="URL", help="TensorFlow Serving uses http://HOST:8501")
    way.add_argument(
        "--print-rest-body",
        metavar="FILE",
        help="write the request to a file instead of sending it; - for standard output",
    )
    parser.add_argument("--model", default="detector", help="name of the served model")
    parser.add_argument("--batch", type=int, default=8, help="images per request")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file")
    options = parser.parse_args(arguments)
    if options.print_rest_body:
        _, images, missed = read(options.images)
        write_body(images, options.print_rest_body)
        return int(missed > 0)
    ask, where = (ask_grpc, options.grpc) if options.grpc else (ask_rest, options.rest)
    refused = 0
    for start in range(0, len(options.images), options.batch):
        files, images, missed = read(options.images[start : start + options.batch])
        refused += missed
        if not images:
            continue
        try:
            results = ask(where, options.model, images)
        except OSError as error:
            print(error, file=sys.stderr)
            return 2
        for file, found in zip(files, results, strict=True):
            show(file, found)
            refused += found["status"] != 0
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
