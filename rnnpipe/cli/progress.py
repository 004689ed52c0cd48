"""What a person sees while training: a bar on a terminal, plain lines elsewhere; and what Ctrl-C does."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from tqdm import tqdm

from rnnpipe.cli import Terminated, say
from rnnpipe.errors import Interrupted

if TYPE_CHECKING:
    from rnnpipe.training.callbacks import TrainState


class TrainingProgress:
    """A callback that shows where training stands on standard error; `level` is that of a text, None for sequences."""

    def __init__(self, level: str | None = None) -> None:
        self.level = level
        self.bar: tqdm[None] | None = None
        self.skipped = 0

    def on_start(self, state: TrainState) -> None:
        """Open the bar, on a terminal."""
        if sys.stderr.isatty():
            self.bar = tqdm(total=1000, file=sys.stderr, bar_format="{percentage:3.0f}% |{bar}| {postfix}", leave=False)

    def on_step(self, state: TrainState) -> None:
        """Show an interval's loss."""
        self._warn_of_skipped(state)
        line = f"step {state.step}{_of(state)}  epoch {state.epoch + 1}  {self._loss(state, state.loss, state.figures)}"
        line += f"  {state.items_per_second:,.0f} {state.units.items}/s  ETA {_eta(state)}"
        if self.bar is None:
            say(line)
            return
        self.bar.n = round(1000 * state.progress)
        self.bar.set_postfix_str(line)

    def on_evaluate(self, state: TrainState) -> None:
        """Show the validation loss."""
        self._warn_of_skipped(state)
        if state.valid_loss is not None:
            best = "  best so far" if state.best_step == state.step else ""
            loss = self._loss(state, state.valid_loss, state.valid_figures)
            self._write(f"step {state.step}  validation {loss}{best}")

    def on_end(self, state: TrainState) -> None:
        """Close the bar and say how long training took."""
        self.close()
        if state.stopped_early:
            say(f"stopped early: the validation loss has not improved since step {state.best_step}")
        say(f"trained {state.step:,} steps, {state.items:,} {state.units.items}, {state.seconds:.1f} s")

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _warn_of_skipped(self, state: TrainState) -> None:
        if state.skipped_steps > self.skipped:
            self.skipped = state.skipped_steps
            self._write(f"warning: steps skipped so far, as their loss or gradient was not finite: {self.skipped:,}")

    def _write(self, line: str) -> None:
        if self.bar is None:
            say(line)
        else:
            self.bar.write(line, file=sys.stderr)

    def _loss(self, state: TrainState, loss: float, figures: Mapping[str, float]) -> str:
        if self.level == "char":
            return f"loss {loss:.4f} nats ({loss / math.log(2):.3f} bits per character)"
        if self.level is not None:
            return f"loss {loss:.4f} nats (perplexity {figures['perplexity']:,.1f})"
        return "  ".join(
            [f"loss {loss:.6g}", *(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())]
        )


def _of(state: TrainState) -> str:
    return f"/{state.total_steps}" if state.total_steps else ""


def _eta(state: TrainState) -> str:
    if not state.progress:
        return "?"
    left = round(state.seconds * (1 - state.progress) / state.progress)
    return f"{left // 3600}:{left % 3600 // 60:02}:{left % 60:02}" if left >= 3600 else f"{left // 60}:{left % 60:02}"


class Stop:
    """Which signal has asked training to stop, if any. As a callback it knows when there is something to save."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.training = False

    def on_start(self, state: TrainState) -> None:
        """From now on a signal lets the step finish and saves."""
        self.training = True

    def on_step(self, state: TrainState) -> None:
        """Take no notice."""

    def on_evaluate(self, state: TrainState) -> None:
        """Take no notice."""

    def on_end(self, state: TrainState) -> None:
        """From now on a signal ends the process at once."""
        self.training = False

    def asked(self) -> bool:
        """Say whether a signal has come."""
        return self.number is not None

    def set_exit_code(self, error: BaseException) -> None:
        """Make an interruption exit by the signal that caused it."""
        if isinstance(error, Interrupted) and self.number is not None:
            error.exit_code = 128 + self.number


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Yield what hears the first Ctrl-C, SIGTERM or SIGHUP, so that training can save; the second one ends at once.

    A signal that is ignored stays so: `nohup` and shells that start a job in the background ask for that.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.training and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.training:
            raise Terminated(number)
        stop.number = number
        for other in before:  # the system's own way: it ends the process even within a long operation of torch
            signal.signal(other, signal.SIG_DFL)
        # Not by `say`: a handler may run while a line is being written, and must not write to the same stream.
        with suppress(OSError):
            os.write(2, b"stopping after this step and saving; once more to end at once\n")

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
