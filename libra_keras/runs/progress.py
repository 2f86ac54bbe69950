"""What a run prints while it trains: a bar that fits the terminal, and a line for every epoch."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import keras

from libra_keras.runs.watching import Speedometer

REDRAWN = 0.1  # seconds from one picture of a bar to the next
REPEATED = 600.0  # and from line to line where the output is not a terminal
BAR = range(6, 31)  # characters


def is_watched() -> bool:
    """Whether the output is a terminal, which can redraw a line; services have no output at all."""
    return sys.stdout is not None and sys.stdout.isatty()


class Line:
    """Shows progress: on a terminal in one line that is redrawn, elsewhere in a line at the start
    and every ten minutes."""

    def __init__(self):
        self._due = 0.0
        self._width = 0  # of what is shown

    def draw(self, title: str, done: int, total: int, notes: Callable[[], Sequence[str]]) -> None:
        """Shows how many of all are done, unless that was just shown."""
        now, is_terminal = time.monotonic(), is_watched()
        if now < self._due and not (is_terminal and done == total):
            return
        self._due = now + (REDRAWN if is_terminal else REPEATED)
        if not is_terminal:
            print("  ".join([title, f"{done}/{total}", *notes()]), flush=True)
            return
        self._width = max(1, shutil.get_terminal_size().columns - 1)  # in the last one some wrap
        line = fitted(title, done, total, notes(), self._width)
        print(f"\r{line:<{self._width}}", end="", flush=True)

    def over(self, title: str, batches: Any) -> Iterator[Any]:
        """Yields batches, and shows how many have been processed."""
        total = len(batches) if isinstance(batches, Sized) else 0
        self.draw(title, 0, total, tuple)
        for done, batch in enumerate(batches, 1):
            yield batch
            self.draw(title, done, total, tuple)

    def clear(self) -> None:
        """Makes room on the terminal for other lines."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", flush=True)
        self._width = 0


def fitted(title: str, done: int, total: int, notes: Sequence[str], width: int) -> str:
    """Returns a line of at most `width` characters with a bar, and as many notes as fit."""
    count = f"{done:>{len(str(total))}}/{total}"
    kept = len(notes)
    while kept and len("  ".join([title, count, *notes[:kept]])) > width:
        kept -= 1
    line = "  ".join([title, count, *notes[:kept]])
    room = min(width - len(line) - 3, BAR[-1])  # two brackets and a space
    if room in BAR and total:
        full = room * done // total
        line = f"{title} [{'=' * full}{'.' * (room - full)}] {line[len(title) + 2 :]}"
    return line[:width]


def clock(seconds: float) -> str:
    """Writes seconds as `0:07`, `12:30` or `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressBar(keras.callbacks.Callback):
    """Shows an epoch while it runs: its loss, images per second, and the time left in the run,
    including evaluations once there was one. It must come before the evaluation."""

    def __init__(self, speed: Speedometer, line: Line):
        super().__init__()
        self.speed = speed
        self.line = line
        self._ended: float | None = None
        self._pauses: list[float] = []  # between epochs, where evaluations are

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._ended is not None:
            self._pauses.append(time.monotonic() - self._ended)

    def on_train_batch_end(self, batch, logs=None):
        title, done = f"Epoch {self._epoch + 1}/{self.params['epochs']}", batch + 1
        self.line.draw(title, done, self.params["steps"], lambda: self._notes(done, logs or {}))

    def on_epoch_end(self, epoch, logs=None):
        self._ended = time.monotonic()

    def _notes(self, done, logs):
        left = self._seconds_left(done)
        return [
            *numbers(logs, self.speed.images_per_second),
            *([] if math.isnan(left) else [f"{clock(left)} left"]),
        ]

    def _seconds_left(self, done):
        """Seconds until the run ends; NaN where the speed is not known yet."""
        epochs = self.params["epochs"] - self._epoch
        steps = epochs * self.params["steps"] - done
        pause = sum(self._pauses) / max(1, len(self._pauses))
        return steps * self.speed.batch_size / self.speed.images_per_second + epochs * pause


class EpochLines(keras.callbacks.Callback):
    """Prints a line for every epoch, with AP or recall if measured; for the last epoch, these are
    left to the table of all numbers. It must come after the evaluation."""

    def __init__(self, speed: Speedometer, line: Line, monitor: str):
        super().__init__()
        self.speed = speed
        self.line = line
        self.monitor = monitor

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        self.line.clear()
        parts = [f"Epoch {epoch + 1}/{self.params['epochs']}"]
        parts += [clock(time.monotonic() - self._started)]
        parts += numbers(logs, self.speed.images_per_second)
        is_last = epoch + 1 == self.params["epochs"] or self.model.stop_training
        measured = logs.get(self.monitor, math.nan)
        if not is_last and math.isfinite(measured):
            parts.append(f"{self.monitor.removeprefix('val_')} {measured:.3f}")
        print("  ".join(parts), flush=True)


def numbers(logs: dict[str, float], images_per_second: float) -> list[str]:
    """Writes the loss and the speed, where they are known."""
    found = [f"loss {float(logs['loss']):.3f}"] if "loss" in logs else []
    speed = images_per_second
    return found if math.isnan(speed) else [*found, f"{speed:.1f} images/s"]
