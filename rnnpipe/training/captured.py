"""Training steps recorded once and replayed: on a CUDA device as graphs, whose kernels start without Python.

A recorded step reads its batch and the state before it from buffers that stay where they are, and leaves loss, gradient
and state behind it in others. Whether a step counts is decided between its two halves, gradients and update, as in any
other step; so a replayed training gives the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.recurrent import States

Gradients: TypeAlias = tuple[Tensor, Tensor, States]  # loss, norm of the gradient, and the state behind, cut off
Result = TypeVar("Result")

_WARM = 3  # times that a kind of batch is met before its step is recorded: libraries and optimizers set themselves up
_MOST = 4  # kinds of batches that are recorded; the others, as the short window at an epoch's end, run as they are


class Recorder(Protocol):
    """Records what a function does to tensors, for doing it again to the same tensors."""

    def warm(self, work: Callable[[], Result]) -> Result:
        """Run a function where it will be recorded."""
        ...

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Return what a function returns, not computed yet, and what computes it, each time anew in the same place."""
        ...


class CudaGraphs:
    """Records as CUDA graphs, all on one stream and with one pool of memory, since they never run at a time."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, work: Callable[[], Result]) -> Result:
        """Run a function on the stream."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Capture a function; torch's generator of the device is registered with the graph, so dropout draws anew."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                result = work()
        except Exception:
            # The generator would take every later draw for one inside the graph that failed.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return result, graph.replay


@dataclass(frozen=True)
class Capture:
    """How steps are recorded. required: what cannot be is an error; otherwise it is reported and runs as it is."""

    recorder: Recorder
    required: bool
    report: Callable[[str], None]


@dataclass
class _Recorded:
    """The recorded step of one kind of batch. gradients: of the parameters, where it leaves them."""

    batch: Any
    before: States | None
    found: Gradients
    gradients: list[Tensor | None]
    replay: Callable[[], None]
    update: Callable[[], None] | None = None


class CapturedStep:
    """A training step in two halves, each as it is, or replayed where it has been recorded for such a batch.

    compute: leaves a batch's gradient in the parameters; a plain function of tensors of the batch and the state.
    """

    def __init__(
        self,
        capture: Capture,
        parameters: list[nn.Parameter],
        compute: Callable[[Any, States | None], Gradients],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        self.capture = capture
        self.parameters = parameters
        self.compute = compute
        self.device = device
        self.update_step = StaticUpdate(optimizer, device) if takes_rates_as_tensors(optimizer) else None
        self._met: dict[Any, int] = {}
        self._recorded: dict[Any, _Recorded] = {}
        self._current: _Recorded | None = None
        self._updates = 0
        self._failed = False

    def gradients(self, batch: Any, before: States | None) -> Gradients:
        """Leave the gradient of a batch, which may be on another device, in the parameters; return the rest."""
        kind = _kind(batch, before)
        self._met[kind] = met = self._met.get(kind, 0) + 1
        if met > _WARM and kind not in self._recorded and len(self._recorded) < _MOST and not self._failed:
            self._record(kind, batch, before)
        self._current = recorded = self._recorded.get(kind)
        if recorded is None:
            return self.capture.recorder.warm(lambda: self.compute(batch.to(self.device), before))
        for held, given in zip(_tensors(recorded.batch), _tensors(batch), strict=True):
            held.copy_(given, non_blocking=True)
        if before and recorded.before and (leaves := _leaves(before)):
            torch._foreach_copy_(_leaves(recorded.before), leaves)
        for parameter, gradient in zip(self.parameters, recorded.gradients, strict=True):
            parameter.grad = gradient
        recorded.replay()
        loss, norm, after = recorded.found
        # A state of its own: the one before is still needed if this step does not count, or is taken again.
        return loss, norm, _cloned(after)

    def update(self) -> None:
        """Take the step of an optimizer whose rates may be tensors, behind `gradients`."""
        assert self.update_step is not None, "the optimizer is asked with `takes_rates_as_tensors`"
        step, recorder, recorded = self.update_step, self.capture.recorder, self._current
        step.set_rates()
        ready = self._updates >= _WARM and not self._failed  # the optimizer's own state is there
        if recorded is not None and recorded.update is None and ready:
            with self._trying():
                recorded.update = recorder.record(step.recordable)[1]
        if recorded is None or recorded.update is None:
            recorder.warm(step)
            self._updates += 1
        else:
            recorded.update()

    def _record(self, kind: Any, batch: Any, before: States | None) -> None:
        held = _held(batch.to(self.device))
        state = None if before is None else _cloned(before)
        with self._trying():
            found, replay = self.capture.recorder.record(lambda: self.compute(held, state))
            gradients = [parameter.grad for parameter in self.parameters]
            self._recorded[kind] = _Recorded(held, state, found, gradients, replay)

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        """Where recording fails, go on without it altogether, those steps too that have been recorded."""
        try:
            yield
        except Exception as error:  # of a model or optimizer of any origin: it runs as it is
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            if self.capture.required:
                raise UsageError(f"runtime.capture=on: the step cannot be recorded ({reason}); use auto.") from error
            self.capture.report(f"warning: training goes on without capture: the step cannot be recorded ({reason}).")
            self._failed = True
            self._recorded.clear()


class StaticUpdate:
    """An optimizer's update that reads its learning rates from tensors, so that a recorded one follows a schedule."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.optimizer = optimizer
        # On a GPU kernels read float32; on a CPU torch takes the number out, and no bit is to be lost.
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self.rates = [torch.zeros((), dtype=dtype, device=device) for _ in optimizer.param_groups]

    def set_rates(self) -> None:
        """Take over the learning rates that the optimizer's groups have now."""
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    def __call__(self) -> None:
        """Update the parameters."""
        self._step({})

    def recordable(self) -> None:
        """Update the parameters, with torch's leave to do so inside a graph; a fused update computes the same."""
        self._step({"capturable": True})

    def _step(self, settings: dict[str, bool]) -> None:
        groups = self.optimizer.param_groups
        kept = [dict(group) for group in groups]
        for rate, group in zip(self.rates, groups, strict=True):
            group.update({"lr": rate, **{name: value for name, value in settings.items() if name in group}})
        try:
            self.optimizer.step()
        finally:
            for group, was in zip(groups, kept, strict=True):
                group.update(was)


def takes_rates_as_tensors(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether all of an optimizer's groups are updated by torch's fused kernels, which read rates from tensors.

    The updates of others run between the replays, as they are.
    """
    return type(optimizer).__module__.startswith("torch.optim") and all(
        group.get("fused") for group in optimizer.param_groups
    )


def _tensors(batch: Any) -> list[Tensor]:
    values = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return [value for value in values if isinstance(value, Tensor)]


def _held(batch: Any) -> Any:
    """Return a batch with tensors of its own."""
    fields = ((field.name, getattr(batch, field.name)) for field in dataclasses.fields(batch))
    return dataclasses.replace(batch, **{name: value.clone() for name, value in fields if isinstance(value, Tensor)})


def _cloned(state: States) -> States:
    return tuple(tuple(leaf.clone() for leaf in layer) for layer in state)


def _leaves(state: States) -> list[Tensor]:
    return [leaf for layer in state for leaf in layer]


def _kind(batch: Any, before: States | None) -> Any:
    """Return what a recorded step takes for granted: all of a batch and state but tensors' values and the cursor."""
    values = (getattr(batch, field.name) for field in dataclasses.fields(batch) if field.name != "cursor")
    given = tuple((value.shape, value.dtype) if isinstance(value, Tensor) else value for value in values)
    return given, None if before is None else tuple((leaf.shape, leaf.dtype) for leaf in _leaves(before))
