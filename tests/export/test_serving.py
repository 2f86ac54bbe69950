"""An exported detector where no libra_keras is: TensorFlow's tools, its C API, a server's clients.

What each of them gives for photographs is compared with `model.detect`.
"""

import numpy as np
import pytest
from rest_server import rest_server
from serving import (
    TESTS,
    check_same,
    need_serving,
    prediction_server,
    recipe,
    run_program,
)

ANY_SCORE = 0.0
# The package cannot be imported here: what a server has is TensorFlow alone.
BARE_PROCESS = """
import sys
import numpy as np
sys.modules["libra_keras"] = None
import tensorflow as tf
detect = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = [open(file, "rb").read() for file in sys.argv[3:]]
found = detect(image_bytes=tf.constant(images))
np.savez(sys.argv[2], **{key: value.numpy() for key, value in found.items()})
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(photographs):
    """Three photographs, a portrait among them."""
    files = sorted((photographs("coco_mini") / "val2017").glob("*.jpg"))
    return files[:3]


@pytest.fixture(scope="module")
def expected(served_model, photos):
    return served_model.detect([str(file) for file in photos], score_threshold=ANY_SCORE)


@pytest.fixture(scope="module")
def version(served_folder):
    return served_folder / "1"


@pytest.fixture(scope="module")
def address(served_folder):
    need_serving()
    with prediction_server(served_folder) as (address, _):
        yield address


def check_rows(found, expected):
    for row, one in enumerate(expected):
        check_same(found, one, row)


def test_saved_model_cli(version, photos, expected, tmp_path):
    tool = "-m", "tensorflow.python.tools.saved_model_cli"
    shown = run_program(*tool, "show", "--dir", version, "--all")
    for name in ("serving_default", "images", "images_float", "prepared"):
        assert f"signature_def['{name}']" in shown
    assert "inputs['image_bytes'] tensor_info:\n        dtype: DT_STRING" in shown
    given = tmp_path / "given.npy"
    np.save(given, np.array([file.read_bytes() for file in photos], "S"))
    chosen = ["--tag_set", "serve", "--signature_def", "serving_default"]
    files = ["--inputs", f"image_bytes={given}", "--outdir", tmp_path]
    run_program(*tool, "run", "--dir", version, *chosen, *files)
    written = {file.stem: np.load(file, allow_pickle=True) for file in tmp_path.glob("[dns]*.npy")}
    check_rows(written, expected)


def test_process_without_this_package(version, photos, expected, tmp_path):
    run_program("-c", BARE_PROCESS, version, tmp_path / "found.npz", *photos)
    check_rows(np.load(tmp_path / "found.npz", allow_pickle=True), expected)


def test_c_api_without_python_of_tensorflow(version, photos, expected, tmp_path):
    found, half = tmp_path / "found.npz", tmp_path / "half.jpg"
    half.write_bytes(photos[0].read_bytes()[:2000])  # must not end the session's run
    files = photos[0], half, *photos[1:]
    said = run_program(TESTS / "export" / "c_api.py", version, found, *files)
    assert said.startswith("TensorFlow 2.")
    served = dict(np.load(found))
    assert served["status"].tolist() == [0, 4, 0, 0] and served["num_detections"][1] == 0
    check_rows({key: np.delete(value, 1, 0) for key, value in served.items()}, expected)


def test_client_over_grpc(address, photos, expected, capsys):
    client = recipe("serve_client.py")
    found = client.ask_grpc(address, "detector", [file.read_bytes() for file in photos])
    compare(found, expected)
    assert client.main(["--grpc", address, *map(str, photos)]) == 0
    assert f"{photos[0]}: {len(expected[0]['boxes'])} objects" in capsys.readouterr().out


def compare(found, expected):
    """The client's own form, which has no padding."""
    for one, detected in zip(found, expected, strict=True):
        assert one["status"] == 0 and one["names"] == detected["names"] != []
        assert one["classes"] == detected["labels"].tolist()
        np.testing.assert_allclose(one["boxes"], detected["boxes"], atol=1e-2)
        np.testing.assert_allclose(one["scores"], detected["scores"], atol=1e-4)


def test_client_tells_what_was_refused(address, photos, tmp_path, capsys):
    client = recipe("serve_client.py")
    (tmp_path / "text.jpg").write_text("no image")
    files = [str(tmp_path / "text.jpg"), str(photos[0])]
    assert client.main(["--grpc", address, *files]) == 1
    assert "text.jpg: refused: neither JPEG nor PNG" in capsys.readouterr().out
    assert client.main(["--grpc", address, "--model", "other", *files]) == 2
    assert "NOT_FOUND" in capsys.readouterr().err


def test_metadata_over_grpc(address):
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "detector"
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.GetModelMetadata(request, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    inputs = signatures.signature_def["serving_default"].inputs
    assert response.model_spec.version.value == 1 and list(inputs) == ["image_bytes"]


def test_client_over_rest(version, photos, expected, capsys):
    import tensorflow as tf

    client = recipe("serve_client.py")
    loaded = tf.saved_model.load(str(version))
    with rest_server("detector", loaded.signatures["serving_default"]) as url:
        found = client.ask_rest(url, "detector", [file.read_bytes() for file in photos])
        compare(found, expected)
        assert client.main(["--rest", url, "--model", "other", str(photos[0])]) == 2
    assert "404" in capsys.readouterr().err
