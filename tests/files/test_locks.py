"""One writer at a time: across calls, threads and processes, also when one is killed."""

import errno
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from processes import environment

from libra_keras.files import locks
from libra_keras.files.locks import alone, alone_beside, exclusive

HOLDER = """
import sys, time
from libra_keras.files.locks import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds `lock` until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout.readline().strip() == "held"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_free(path):
    try:
        with exclusive(path):
            return True
    except BlockingIOError:
        return False


def test_two_calls_exclude_each_other(tmp_path):
    path = tmp_path / "made" / "lock"
    with exclusive(path):
        assert not is_free(path) and not is_free(str(path))
        assert is_free(tmp_path / "another")
    assert is_free(path)


def test_two_threads_exclude_each_other(tmp_path):
    found = []
    with exclusive(tmp_path / "lock"):
        thread = threading.Thread(target=lambda: found.append(is_free(tmp_path / "lock")))
        thread.start()
        thread.join()
    assert found == [False]


def test_an_error_in_the_block_releases_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path / "lock"):
        raise KeyboardInterrupt
    assert is_free(tmp_path / "lock")


def test_the_system_releases_what_a_killed_process_held(tmp_path, holder):
    path = tmp_path / "lock"
    assert not is_free(path)
    with pytest.raises(ValueError, match="Another process is writing to cats. Wait until it has"):
        with alone(path, "cats"):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert is_free(path)
    with alone(path, "cats"):
        assert path.exists()
    assert not path.exists()


def test_the_folder_may_be_deleted_meanwhile(tmp_path):
    folder = tmp_path / "checkpoints"
    with exclusive(folder / "lock"):
        shutil.rmtree(folder)
    assert not folder.exists()
    with exclusive(folder / "lock"):
        shutil.rmtree(folder)
        folder.mkdir()
    assert list(folder.iterdir()) == []


def test_whoever_finds_it_held_leaves_the_file(tmp_path):
    with alone_beside(tmp_path / "cats"):
        with pytest.raises(ValueError, match="Another process is writing to .*cats"):
            with alone_beside(tmp_path / "cats"):
                pass
        assert [path.name for path in tmp_path.iterdir()] == [".lock.cats"]
    assert list(tmp_path.iterdir()) == []


def test_a_link_and_its_target_are_one(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "link").symlink_to("cats")
    with alone_beside(tmp_path / "cats"), pytest.raises(ValueError, match="link"):
        with alone_beside(tmp_path / "link"):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_nothing_is_locked(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor, operation):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "lock"
    with exclusive(path), exclusive(path):
        pass
    with alone(path, "cats"), alone(path, "cats"):
        pass
    assert not path.exists()


def test_a_file_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), exclusive(tmp_path / "file" / "lock"):
        pass
    (tmp_path / "lock").mkdir()
    with pytest.raises(OSError), exclusive(tmp_path / "lock"):
        pass


def test_a_file_of_another_user_is_no_lock(tmp_path, monkeypatch):
    """In a folder like /tmp its owner could exchange it; going on without would be worse."""

    def acquire(self):
        raise PermissionError(errno.EACCES, "lock file belongs to another user")

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    with pytest.raises(PermissionError), exclusive(tmp_path / "lock"):
        pass
