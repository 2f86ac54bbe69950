"""Files of others: kinds, sizes, encodings, and errors that name the file."""

import json
import os
import socket

import pytest

from libra_keras.files import reading


@pytest.fixture
def no_file(tmp_path, request):
    """A path at which something stands that is no file."""
    path = tmp_path / "x.json"
    if request.param == "a FIFO":
        os.mkfifo(path)
    elif request.param == "a folder":
        path.mkdir()
    elif request.param == "a device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # addresses have at most 108 characters
    return path


every_kind = pytest.mark.parametrize(
    "no_file", ["a FIFO", "a folder", "a device", "a socket"], indirect=True
)


@every_kind
@pytest.mark.parametrize("read", [reading.read_json, reading.read_text, reading.check_regular])
def test_what_is_no_file_is_not_opened(no_file, read):
    with pytest.raises(OSError, match=r"x\.json is a \w+, where a file is expected"):
        read(no_file)
    assert not reading.is_regular(no_file)


def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    os.mkfifo(path)
    monkeypatch.setattr(reading, "check_regular", lambda path, most: None)
    with pytest.raises(OSError, match="is a FIFO"):
        reading.open_regular(path)


def test_links_to_files_are_files(tmp_path):
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "x.json").symlink_to("real.json")
    assert reading.read_object(tmp_path / "x.json") == {}


def test_sizes_are_looked_at_first(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(OSError, match=r"x\.json has 1,048,576 MiB, where at most 64 MiB"):
        reading.read_json(path)


def test_no_text_for_a_path_is_an_error():
    assert not any(map(reading.is_regular, ["a\0b", "\ud800", "x" * 5000, ""]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_may_be_in_any_form_of_unicode(tmp_path, encoding):
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps({"é": 1}, ensure_ascii=False).encode(encoding))
    assert reading.read_object(path) == {"é": 1}


@pytest.mark.parametrize(
    "content, words",
    [
        (b'{"images":' + b"[" * 100_000, "it is nested too deeply"),
        (b"[1, 2", "Expecting"),
        (b"\xff\x00\xfe", "codec can't decode"),
        (b"9" * 5000, "4300 digits"),
        (b"null", "expected an object. Received: None"),
        (b"", "Expecting value"),
    ],
)
def test_damage_is_one_error_that_names_the_file(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json cannot be read: ") as caught:
        reading.read_object(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_names_its_file_stays(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.json"), reading.explained(tmp_path / "x.json"):
        reading.read_bytes(tmp_path / "x.json")


@pytest.mark.parametrize(
    "error, words",
    [
        (KeyError("boxes"), "KeyError: 'boxes'"),
        (MemoryError(), "it does not fit into memory"),
        (TypeError("a\n  b"), "TypeError: a b"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_reasons_are_one_line(error, words):
    assert reading.reason(error) == words
