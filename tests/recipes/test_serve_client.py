"""The client that users copy: what it sends over REST, and what it makes of answers.

`tests/export/test_serving.py` has it ask a detector.
"""

import base64
import json
import subprocess
import sys

import pytest
from processes import free_ports
from rest_server import predict, rest_server
from serving import recipe

IMAGES = [b"\xff\xd8 a photograph", b"", b"\x89PNG\0\0"]


@pytest.fixture
def client():
    return recipe("serve_client.py")


class Signature:
    """One detection in each image, as wide as the file has bytes; empty files are refused."""

    def __init__(self):
        import tensorflow as tf

        self.structured_input_signature = (), {"image_bytes": tf.TensorSpec((None,), "string")}

    def __call__(self, image_bytes):
        import tensorflow as tf

        found = tf.cast(tf.strings.length(image_bytes) > 0, "int32")
        widths = tf.cast(tf.strings.length(image_bytes), "float32")
        box = tf.stack([widths * 0, widths * 0, widths, widths], -1)
        score = tf.cast(found, "float32") * 0.5
        name = tf.where(found == 1, "cat", "")
        return {
            "detection_boxes": tf.stack([box, box * 0], 1),
            "detection_scores": tf.stack([score, score * 0], 1),
            "detection_classes": tf.stack([found - 1, found * 0 - 1], 1),
            "detection_class_names": tf.stack([name, tf.zeros_like(name)], 1),
            "num_detections": found,
            "status": 1 - found,
            "hash_bytes": image_bytes,  # not of a detector: bytes come back coded
        }


def test_body_holds_the_bytes_of_the_files(client, tmp_path):
    files = [tmp_path / f"{i}.jpg" for i in range(len(IMAGES))]
    for file, data in zip(files, IMAGES, strict=True):
        file.write_bytes(data)
    command = [sys.executable, client.__file__, "--print-rest-body", "-", *map(str, files)]
    body = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert list(body) == ["instances"]
    sent = [instance["image_bytes"]["b64"] for instance in body["instances"]]
    assert [base64.b64decode(text) for text in sent] == IMAGES
    assert client.main(["--print-rest-body", str(tmp_path / "body"), *map(str, files)]) == 0
    assert json.loads((tmp_path / "body").read_text()) == body


def test_answers_over_rest(client):
    with rest_server("detector", Signature()) as url:
        found = client.ask_rest(f"{url}/", "detector", IMAGES)
        with pytest.raises(OSError, match="404.*Malformed request"):
            client.ask_rest(url, "another", IMAGES)
    widths = [[[0, 0, len(data), len(data)]] if data else [] for data in IMAGES]
    assert [one["boxes"] for one in found] == widths
    assert [one["names"] for one in found] == [["cat"], [], ["cat"]]
    assert [one["status"] for one in found] == [0, 1, 0]
    assert found[0] == {
        **{"boxes": [[0, 0, 15, 15]], "scores": [0.5], "classes": [0], "names": ["cat"]},
        "status": 0,
    }


def test_rules_of_the_row_format():
    coded = {"b64": base64.b64encode(b"\xff\0").decode()}
    named = predict(Signature(), {"instances": [{"image_bytes": coded}]})
    assert named == predict(Signature(), {"instances": [coded]})
    assert named["predictions"][0]["hash_bytes"] == coded
    assert named["predictions"][0]["detection_class_names"] == ["cat", ""]
    with pytest.raises(ValueError, match="must have the inputs"):
        predict(Signature(), {"instances": [{"image_bytes": coded, "size": 3}]})


def test_what_is_printed(client, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(IMAGES[0])
    (tmp_path / "b.jpg").write_bytes(b"")
    files = [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    with rest_server("detector", Signature()) as url:
        assert client.main(["--rest", url, "--batch", "1", *files]) == 1
        assert client.main(["--rest", url, files[0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("a.jpg: 1 objects")
    assert lines[1].split() == ["0.500", "cat", "0.0", "0.0", "15.0", "15.0"]
    assert lines[2].endswith("b.jpg: refused: no bytes")


def test_no_server(client, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(IMAGES[0])
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert client.main(["--rest", url, str(tmp_path / "a.jpg")]) == 2
    assert "refused" in capsys.readouterr().err


def test_files_that_cannot_be_read(client, tmp_path, capsys):
    """The others are sent, also those of later batches."""
    for name in ("a.jpg", "d.jpg"):
        (tmp_path / name).write_bytes(IMAGES[0])
    (tmp_path / "c.jpg").mkdir()
    files = [str(tmp_path / f"{name}.jpg") for name in "abcd"]
    with rest_server("detector", Signature()) as url:
        for size in ("1", "2", "8"):
            assert client.main(["--rest", url, "--batch", size, *files]) == 1
            out, err = capsys.readouterr()
            shown = [line for line in out.splitlines() if line.endswith("1 objects")]
            assert [line.partition(":")[0] for line in shown] == [files[0], files[3]]
            assert "b.jpg: not read: No such file" in err and "c.jpg: not read: Is a dir" in err
    assert client.main(["--print-rest-body", "-", *files]) == 1
    assert len(json.loads(capsys.readouterr().out)["instances"]) == 2


def test_files_are_read_batch_by_batch(client, tmp_path, monkeypatch):
    """A request's answer comes before the next files take memory."""
    files = [tmp_path / f"{i}.jpg" for i in range(4)]
    for file in files:
        file.write_bytes(IMAGES[0])

    def ask(url, model, images):
        files[2].write_bytes(b"later")
        sent.append(images)
        nothing = dict.fromkeys(client.OUTPUTS.values(), ())
        return [client.detections({**nothing, "num_detections": 0, "status": 0})] * 2

    sent = []
    monkeypatch.setattr(client, "ask_rest", ask)
    assert client.main(["--rest", "url", "--batch", "2", *map(str, files)]) == 0
    assert sent == [[IMAGES[0]] * 2, [b"later", IMAGES[0]]]
