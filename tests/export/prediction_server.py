"""A stand-in for TensorFlow Serving: its PredictionService over gRPC around an exported folder.

    python prediction_server.py FOLDER [--port 0] [--workers 4] [--max-message-bytes N]

Not TensorFlow Serving itself: Python and `tf.saved_model.load` in the place of its C++, so its
speed says nothing about Serving's. What is the same is what clients see: the protocol
(`tensorflow-serving-api`), the layout of FOLDER (its name is the model's, the highest number in it
the version served), and the codes of errors. It listens on this machine's loopback alone, prints
its port, and serves until it is ended.
"""

import argparse
import concurrent.futures
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

DEFAULT_SIGNATURE = "serving_default"
# What the runtime makes of a request that does not fit the signature or the graph.
REFUSALS = (tf.errors.InvalidArgumentError, TypeError, ValueError)


def highest_version(folder):
    """The version folder that Serving would take: numbers alone count."""
    versions = [path for path in Path(folder).iterdir() if path.name.isdecimal()]
    if not versions:
        raise SystemExit(f"{folder} holds no version: folders with a number for a name")
    return max(versions, key=lambda path: int(path.name))


def tensor(proto):
    """The tensor of a message; the runtime itself checks that its values fill its shape."""
    return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))


class Refused(Exception):
    """A request that is answered with an error: its code and its words."""


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata of one model."""

    def __init__(self, folder):
        self.name = Path(folder).resolve().name
        version = highest_version(folder)
        self.version = int(version.name)
        self.model = tf.saved_model.load(str(version))  # signatures live as long as it does
        self.signatures = dict(self.model.signatures)
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((version / "saved_model.pb").read_bytes())
        self.definitions = saved.meta_graphs[0].signature_def

    def Predict(self, request, context):
        """Runs a signature."""
        try:
            self._check_model(request.model_spec)
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            outputs = self._run(name, request.inputs)
        except Refused as error:
            context.abort(*error.args)
        wanted = set(request.output_filter) or set(outputs)
        response = predict_pb2.PredictResponse(model_spec=self._spec(name))
        for key in wanted & set(outputs):
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key].numpy()))
        return response

    def GetModelMetadata(self, request, context):
        """Tells the signatures."""
        try:
            self._check_model(request.model_spec)
        except Refused as error:
            context.abort(*error.args)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=self.definitions)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=self._spec(""))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _spec(self, signature):
        spec = predict_pb2.PredictResponse().model_spec
        spec.name, spec.signature_name = self.name, signature
        spec.version.value = self.version
        return spec

    def _check_model(self, spec):
        versions = (spec.version.value, self.version) if spec.HasField("version") else (0, 0)
        if spec.name != self.name or versions[0] != versions[1]:
            asked = f"{spec.name} {spec.version.value or 'latest'}"
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found: {asked}")

    def _run(self, name, inputs):
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        if name not in self.signatures:
            raise Refused(invalid, f'Serving signature key "{name}" not found.')
        wanted = self.definitions[name].inputs
        if set(inputs) != set(wanted):
            names = f"{sorted(inputs)}, where the signature has {sorted(wanted)}"
            raise Refused(invalid, f"Inputs do not match: {names}")
        for key, value in inputs.items():
            if value.dtype != wanted[key].dtype:
                types = [tf.as_dtype(dtype).name for dtype in (wanted[key].dtype, value.dtype)]
                raise Refused(invalid, "Input {} must be {}, got {}".format(key, *types))
        try:
            return self.signatures[name](**{key: tensor(value) for key, value in inputs.items()})
        except tf.errors.ResourceExhaustedError as error:
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, error.message) from error
        except REFUSALS as error:
            raise Refused(invalid, str(getattr(error, "message", error))) from error


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--workers", type=int, default=4, help="requests that run at a time")
    # Serving itself takes messages of up to 2 GiB.
    parser.add_argument("--max-message-bytes", type=int, default=64 * 2**20)
    args = parser.parse_args()
    limit = args.max_message_bytes
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=args.workers),
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
        ],
    )
    service = PredictionService(args.folder)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    print(server.add_insecure_port(f"127.0.0.1:{args.port}"), flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
