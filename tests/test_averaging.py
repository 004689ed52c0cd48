"""The moving average of weights: what it is, what uses it, and that descent itself does not see it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli import fail
from test_resume import assert_same_bits
from test_training import after, config, never, task
from torch import Tensor, nn

from rnnpipe.errors import InputError, Interrupted
from rnnpipe.training.averaging import Average
from rnnpipe.training.callbacks import TrainState
from rnnpipe.training.checkpoints import Checkpoint, newest_checkpoint
from rnnpipe.training.loop import fit


def newest(folder: Path) -> Checkpoint:
    found = newest_checkpoint(folder / "checkpoints", pytest.fail)
    assert found is not None
    return found


def test_the_average_is_the_weighted_mean_of_all_steps() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    average = Average(model, 0.9)
    seen: list[Tensor] = []
    for _ in range(7):
        nn.init.normal_(model.weight)
        average.update()
        seen.append(model.weight.detach().clone())
    shares = 0.9 ** torch.arange(6, -1, -1, dtype=torch.float64)
    expected = (torch.stack(seen) * shares[:, None, None]).sum(0) / shares.sum()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, seen[-1])


class Watch:
    """Keeps the weights that callbacks see behind each evaluation."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_start(self, state: TrainState) -> None: ...
    def on_step(self, state: TrainState) -> None: ...
    def on_end(self, state: TrainState) -> None: ...

    def on_evaluate(self, state: TrainState) -> None:
        self.seen.append(nn.utils.parameters_to_vector(state.model.parameters()).detach().clone())


def test_the_average_is_evaluated_and_saved_and_descent_is_as_without_it(tmp_path: Path) -> None:
    plain = task(tmp_path / "plain", config(max_steps=20))
    fit(plain, [], never)
    watch, averaged = Watch(), task(tmp_path / "averaged", config(max_steps=20, average=0.8))
    end = fit(averaged, [watch], never)
    saved, without = newest(tmp_path / "averaged"), newest(tmp_path / "plain")
    own, raw = saved.training()["average"], without.weights()
    assert own["steps"] == 20 and own["weights"].keys() <= raw.keys()
    assert all(torch.equal(weight, raw[name]) for name, weight in own["weights"].items())
    assert "average" not in without.training()
    assert not torch.equal(*(each.weights()["recurrent.layers.0.weight_hh"] for each in (saved, without)))
    assert torch.equal(watch.seen[-1], nn.utils.parameters_to_vector(averaged.model.parameters()))
    again = task(tmp_path / "again", config())
    again.model.load_state_dict(saved.weights())
    found = again.objective.evaluate(again.model, again.device, again.precision)
    assert found is not None and found.loss == end.valid_loss


@pytest.mark.parametrize("stop", [13, 20])
def test_an_average_goes_on_to_the_same_bits(tmp_path: Path, stop: int) -> None:
    """Stopped within an epoch, and where an evaluation was due."""
    settings = config(max_steps=26, average=0.9)
    fit(task(tmp_path / "a", settings), [], never)
    with pytest.raises(Interrupted):
        fit(task(tmp_path / "b", settings), [], after(stop))
    fit(task(tmp_path / "b", settings, seed=9, resume=newest(tmp_path / "b")), [], never)
    assert_same_bits(tmp_path / "b", tmp_path / "a")


@pytest.mark.parametrize("averages", [(0.9, 0.0), (0.0, 0.9)])
def test_a_checkpoint_of_weights_of_another_kind_is_not_gone_on_with(
    tmp_path: Path, averages: tuple[float, float]
) -> None:
    before, after_ = (config(max_steps=4, average=average) for average in averages)
    fit(task(tmp_path, before), [], never)
    with pytest.raises(InputError, match=r"only one of them has training\.average"):
        fit(task(tmp_path, after_, resume=newest(tmp_path)), [], never)


def test_what_has_no_steps_of_descent_has_no_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["training.trainer=ridge", "training.average=0.9", "model.cell=echo-state"]
    error = fail("train", "--dataset", "counting-ones", *(word for each in words for word in ("--set", each)), code=2)
    assert "training.average=0.9: the mean of weights is of descent" in error
