"""A file is fetched whole, from a server that fails in each way, or an error says what to do."""

import hashlib
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from file_server import file_server
from processes import environment, free_ports

from libra_keras.files import downloads
from libra_keras.files.downloads import PublishedFile, fetch

CONTENT = b"weights" * 100_000  # more than one read
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = f"detector_20200130-{DIGITS}.pth"
PROGRAM = """
import sys
from pathlib import Path
from libra_keras.files.downloads import PublishedFile, fetch
fetch(PublishedFile(sys.argv[1], sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(downloads.WEIGHTS, raising=False)
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    with file_server() as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture
def file(server):
    return PublishedFile(f"{server.address}/zoo/{NAME}", DIGITS)


@pytest.fixture
def fetching(server, file, tmp_path):
    """Another process, which has half of the file when the test begins."""
    server.go.clear()
    command = [sys.executable, "-c", PROGRAM, file.address, DIGITS, str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert server.halfway.wait(60)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def seen(folder):
    """Names in a folder, but for what locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".turn."))


def test_a_file_is_fetched_once_into_a_folder_of_the_user_alone(server, file, tmp_path, capsys):
    folder = tmp_path / "made" / "cache"
    assert fetch(file, folder) == folder / NAME
    assert fetch(file, folder).read_bytes() == CONTENT
    assert (server.asked, seen(folder)) == ([NAME], [NAME])
    assert folder.stat().st_mode & 0o077 == 0
    out = capsys.readouterr().out  # no bar, since nobody watches
    assert out == f"Downloading {file.address} to {folder / NAME}\n"


def test_a_bar_counts_where_somebody_watches(server, file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fetch(file, tmp_path)
    assert "1/1" in capsys.readouterr().out and seen(tmp_path) == [NAME]


def test_a_download_that_breaks_off_begins_again(server, file, tmp_path, capsys):
    server.cut = 2
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.asked == [NAME] * 3
    half, whole = len(CONTENT) // 2, len(CONTENT)
    assert capsys.readouterr().out.count(f"broke off after {half} of {whole} bytes; trying") == 2


@pytest.mark.parametrize(
    ("failing", "said", "asked"),
    [
        ({"cut": 9}, r"after 3 attempts: the download broke off after \d+ of \d+ bytes\. Put", 3),
        ({"silent": True}, r"after 3 attempts: the server was silent for 0.1 s\. Put", 3),
        (
            {"status": 503},
            r"after 3 attempts: the server answered 503 Service Unavailable\. Put",
            3,
        ),
        ({"status": 403}, r"answers 403 Forbidden\. Put", 1),
        ({"files": {}}, r"answers 404 Not Found\. Put", 1),
        (
            {"files": {NAME: b"<html>"}},
            rf"a different file: its sha256 is \w{{8}}, not {DIGITS}\.",
            1,
        ),
    ],
)
def test_what_fails_says_where_the_file_goes_by_hand(
    server, file, tmp_path, monkeypatch, failing, said, asked
):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.1)
    vars(server).update(failing)
    server.go.clear() if server.silent else None
    with pytest.raises((OSError, ValueError), match=re.escape(file.address)) as error:
        fetch(file, tmp_path)
    assert re.search(said, str(error.value)) and len(server.asked) == asked
    assert (
        f"Put {NAME} into {tmp_path}, or set LIBRA_KERAS_WEIGHTS to the folder that contains it"
        in (str(error.value))
    )
    assert seen(tmp_path) == []


def test_without_a_network(server, tmp_path):
    (port,) = free_ports(1)
    with pytest.raises(OSError, match=r"cannot be reached: .*refused\. Put .*_WEIGHTS"):
        fetch(PublishedFile(f"http://127.0.0.1:{port}/{NAME}", DIGITS), tmp_path)
    (tmp_path / NAME).write_bytes(CONTENT)  # as the message asks
    assert fetch(PublishedFile(f"http://127.0.0.1:{port}/{NAME}", DIGITS), tmp_path).is_file()


def test_a_second_process_waits_for_the_first(server, file, tmp_path, fetching, capsys):
    threading.Timer(0.2, server.go.set).start()
    assert fetch(file, tmp_path / "cache").read_bytes() == CONTENT
    assert capsys.readouterr().out == f"Another process is downloading {NAME}; waiting for it\n"
    assert fetching.wait(60) == 0 and server.asked == [NAME]


def test_a_killed_download_leaves_nothing_that_counts(server, file, tmp_path, fetching):
    folder = tmp_path / "cache"
    while not (folder / f".unfinished.{NAME}").is_file():
        time.sleep(0.01)
    fetching.kill()
    fetching.wait()
    assert seen(folder) == [f".unfinished.{NAME}"]
    server.go.set()
    assert fetch(file, folder).read_bytes() == CONTENT
    assert seen(folder) == [NAME]


def test_a_disk_that_is_too_small_is_said_before(server, file, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(OSError, match=f"{tmp_path} has 0 MiB left; the file needs 1 MiB"):
        fetch(file, tmp_path)
    assert seen(tmp_path) == []


def test_a_full_disk_keeps_nothing(server, file, tmp_path):
    """A limit on files stands for it."""
    resource = pytest.importorskip("resource", reason="limits of processes, not on Windows")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(OSError, match="cannot be written: File too large. No part of it was"):
            fetch(file, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert seen(tmp_path) == []


def test_a_damaged_file_is_replaced_by_a_whole_one_alone(server, file, tmp_path, capsys):
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    server.status = 404
    with pytest.raises(OSError, match="404"):
        fetch(file, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT[:-1]
    server.status = 200
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert "is damaged (its sha256 is" in capsys.readouterr().out


def test_files_lie_where_the_variable_says(server, file, tmp_path, monkeypatch):
    published = PublishedFile(f"http://nowhere.invalid/zoo/{NAME}", DIGITS)
    monkeypatch.setenv(downloads.WEIGHTS, f"{server.address}/mirror/")
    assert fetch(published, tmp_path / "cache").read_bytes() == CONTENT
    own = tmp_path / "own"
    monkeypatch.setenv(downloads.WEIGHTS, str(own))
    with pytest.raises(
        ValueError, match=f"there is no {own / NAME}. LIBRA_KERAS_WEIGHTS must .*inva"
    ):
        fetch(published, tmp_path / "other")
    own.mkdir()
    (own / NAME).write_bytes(CONTENT)
    assert fetch(published, tmp_path / "other") == own / NAME
    (own / NAME).write_bytes(b"half")
    words = f"{own / NAME} is damaged, or a different file: its sha256"
    with pytest.raises(ValueError, match=words):
        fetch(published, tmp_path / "other")
    assert (own / NAME).read_bytes() == b"half" and not (tmp_path / "other").exists()


def test_the_folder_is_that_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert downloads.keras_home() == tmp_path
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert downloads.keras_home() == tmp_path / "me" / ".keras"
