"""Resized images on disk: the same batches, whatever happens to the folder."""

import collections
import logging
import os
import shutil
import stat
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from voc_folder import write_voc

from libra_keras import data
from libra_keras.data import image_cache
from libra_keras.data.batches import TrainingSource
from libra_keras.data.findings import DamagedImage
from libra_keras.data.image_cache import ImageCache

pytestmark = pytest.mark.usefixtures("roomy_disk")

POLICY = data.InputPolicy(20, 30, pad_multiple=8)
SIZES = [(60, 40)] * 2 + [(40, 60)] * 3 + [(30, 20)]  # the last is not resized


@pytest.fixture
def read(files, monkeypatch):
    """A data set that counts what it decodes, in `read.decoded`."""
    made = files(SIZES)
    decoded = []

    def counted(self, i):
        decoded.append(i)
        return original(self, i)

    original = data.DetectionData.open_image
    monkeypatch.setattr(data.DetectionData, "open_image", counted)
    made.counts["decoded"] = decoded
    return made


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def batches(read, folder, kind="py", epochs=2):
    options = {"epochs": epochs, "kind": kind, "cache": folder, "threads": 1}
    made = data.training_batches(read, POLICY, 2, **options)
    return [array for batch in made for array in keras.tree.flatten(batch)]


def assert_equal(mine, others):
    for array, other in zip(mine, others, strict=True):
        np.testing.assert_array_equal(array, other)


def test_batches_are_those_without_a_cache_and_nothing_is_decoded_twice(read, tmp_path):
    without = batches(read, None)
    decoded = read.counts["decoded"]
    decoded.clear()
    for _ in range(2):
        assert_equal(batches(read, tmp_path / "cache"), without)
        assert sorted(set(decoded)) == sorted(decoded)  # once each
    assert len(entries(tmp_path / "cache")) == len(decoded)
    cache = ImageCache(tmp_path / "cache", read, POLICY)
    one = 64 + 3 * 20 * 30
    assert cache.bytes_needed() == (6 * one, (6 - len(decoded)) * one)
    [cache.read(i) for i in range(len(read))]
    assert cache.bytes_needed() == (6 * one, 0)
    assert sum(path.stat().st_size for path in entries(tmp_path / "cache")) == 6 * one


def test_batches_of_tf_data(files, tmp_path):
    pytest.importorskip("tensorflow", reason="batches for Keras on TensorFlow")
    read = files(SIZES)
    without = batches(read, None, "tf")
    for _ in range(2):
        assert_equal(batches(read, tmp_path / "cache", "tf"), without)


def damaged(stored):
    yield b""
    yield stored[:30]
    yield stored[:-1]
    yield stored[:200] + bytes(64) + stored[264:]  # a block that was never written
    yield stored[:-1] + bytes([stored[-1] ^ 1])
    yield b"another!" + stored[8:]
    yield stored + b"more"


def test_a_damaged_entry_is_made_anew(read, tmp_path):
    cache = ImageCache(tmp_path / "cache", read, POLICY)
    whole = cache.read(0).copy()
    (entry,) = entries(tmp_path / "cache")
    stored = entry.read_bytes()
    for content in damaged(stored):
        entry.write_bytes(content)
        np.testing.assert_array_equal(cache.read(0), whole)
        assert entry.read_bytes() == stored


def test_a_cache_that_others_remove_or_fill_with_other_things(read, tmp_path, caplog):
    cache = ImageCache(tmp_path / "cache", read, POLICY)
    whole = cache.read(0).copy()
    (entry,) = entries(tmp_path / "cache")
    entry.unlink()
    os.mkfifo(entry)
    np.testing.assert_array_equal(cache.read(0), whole)
    assert entry.is_file()  # the FIFO was replaced
    entry.unlink()
    entry.mkdir()
    np.testing.assert_array_equal(cache.read(0), whole)
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(cache.read(0), whole)
    assert len(caplog.records) == 1 and "The run continues without it" in caplog.text


def test_a_changed_file_a_new_policy_and_another_size_are_read_anew(read, tmp_path):
    cache = ImageCache(tmp_path / "cache", read, POLICY)
    before, file = cache.read(0).copy(), read.examples[0].file
    found = os.stat(file)
    file.write_bytes(read.examples[1].file.read_bytes())
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1000))
    after = cache.read(0)
    assert (before[..., 2] == 0).all() and (after[..., 2] == 1).all()
    assert len(entries(tmp_path / "cache")) == 1  # in place of the stale one
    other = ImageCache(tmp_path / "cache", read, data.InputPolicy(10, 30))
    assert other.read(0).shape == (10, 15, 3)
    assert len(entries(tmp_path / "cache")) == 2
    object.__setattr__(read.examples[0], "width", 120)  # the annotation no longer fits the file
    with pytest.raises(DamagedImage, match=r"expected \(40, 120\)"):
        cache.read(0)
    file.unlink()
    with pytest.raises(DamagedImage, match="No such file"):
        cache.read(0)


def test_a_full_disk_warns_once_and_the_run_goes_on(read, tmp_path, monkeypatch, caplog):
    without = batches(read, None)
    cache = ImageCache(tmp_path / "cache", read, POLICY)
    cache.read(0)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        assert_equal(batches(read, tmp_path / "cache"), without)
    assert [record.message.count("No space left") for record in caplog.records] == [1]
    assert len(entries(tmp_path / "cache")) == 1  # no half entries, and the old one is used
    read.counts["decoded"].clear()
    cache.read(0)
    assert not read.counts["decoded"]


def test_a_disk_is_never_filled_whole(read, tmp_path, monkeypatch, caplog):
    """A run has checkpoints to save, perhaps on the same disk."""
    usage = collections.namedtuple("usage", "free")
    free = image_cache.SPARE + 20 * 30 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free))
    without = batches(read, None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free - 1))
    with caplog.at_level(logging.WARNING):
        assert_equal(batches(read, tmp_path / "cache"), without)
    assert [record.message.count("2.15 GB are free") for record in caplog.records] == [1]
    assert entries(tmp_path / "cache") == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free))
    batches(read, tmp_path / "cache")
    assert entries(tmp_path / "cache") != []


def test_others_may_read_entries(read, tmp_path):
    before = os.umask(0o022)
    try:
        ImageCache(tmp_path / "cache", read, POLICY).read(0)
    finally:
        os.umask(before)
    (entry,) = entries(tmp_path / "cache")
    assert stat.S_IMODE(entry.stat().st_mode) == 0o644


def test_what_a_killed_process_left_is_removed_in_time(read, tmp_path):
    folder = tmp_path / "cache" / "ab"
    folder.mkdir(parents=True)
    old, new = folder / ".unfinished.old", folder / ".unfinished.new"
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - 2 * image_cache.ABANDONED_AFTER
    os.utime(old, (past, past))
    ImageCache(tmp_path / "cache", read, POLICY)
    assert not old.exists() and new.exists()


def test_drawn_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shapes.train"):
        TrainingSource(data.shapes(2), POLICY, 2, cache=tmp_path)


WRITER = """
import sys
from libra_keras import data
from libra_keras.data import image_cache
from libra_keras.data.image_cache import ImageCache, file_identity
image_cache.SPARE = 0
read = data.voc(sys.argv[1], "train")
cache = ImageCache(sys.argv[2], read, data.InputPolicy(128, 192))
contents = [cache.read(i) for i in range(len(read))]
print("ready", flush=True)
while True:
    for example, content in zip(read.examples, contents):
        cache._save(cache._entry(example), file_identity(example.file), content)
"""


@pytest.mark.slow
def test_processes_share_a_folder_and_may_be_killed(tmp_path):
    """Two processes write the same entries over and over; a third reads them while they die."""
    boxes = [[(5, 5, 60, 40)]] * 4
    write_voc(tmp_path / "voc", size=(96, 64), suffix="jpg", train=boxes)
    read, policy = data.voc(tmp_path / "voc", "train"), data.InputPolicy(128, 192)
    expected = [policy.resized(read.read_image(i)) for i in range(4)]
    command = [sys.executable, "-c", WRITER, str(tmp_path / "voc"), str(tmp_path / "cache")]
    cache = ImageCache(tmp_path / "cache", read, policy)
    for _ in range(2):
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for i in range(4):
                np.testing.assert_array_equal(cache.read(i), expected[i])
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
        for i in range(4):
            np.testing.assert_array_equal(cache.read(i), expected[i])
