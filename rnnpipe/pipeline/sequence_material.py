"""A sequence dataset as what a run is trained on."""

from __future__ import annotations

from typing import cast

from rnnpipe.config import Config
from rnnpipe.data.base import SequenceDataset
from rnnpipe.data.sequences import SequenceData, load_sequences
from rnnpipe.pipeline.build import build_sequence_model, resolve_numerics
from rnnpipe.pipeline.common import Report, no_report
from rnnpipe.pipeline.kind import build_dataset
from rnnpipe.pipeline.material import Material
from rnnpipe.training.sequence_objective import SequenceObjective


def load_data(config: Config) -> SequenceData:
    """Return the configured sequence dataset, read and checked."""
    named = config.data.dataset
    return load_sequences(named.name, cast("SequenceDataset", build_dataset(named)))


def sequence_material(config: Config, data: SequenceData, report: Report = no_report) -> Material:
    """Return what a run is trained on that reads a sequence dataset."""
    sizes, digests = data.sizes, data.digests()
    if "valid" not in data.parts:
        report(f"warning: dataset '{data.name}' has no validation part; the last weights are the best.")
    counts = ", ".join(f"{part} {len(sequences.lengths):,}" for part, sequences in data.parts.items())
    lengths = f"up to {sizes.timesteps}" if sizes.ragged else f"of {sizes.timesteps}"
    report(f"sequences: {counts}; {lengths} timesteps, {sizes.input_size} numbers each; target {describe_target(data)}")
    return Material(
        objective=SequenceObjective(
            train=data.parts["train"],
            valid=data.parts.get("valid"),
            sizes=sizes,
            config=config.training,
            seed=config.runtime.seed,
            tolerance=tolerance(config, data),
        ),
        build=lambda config: build_sequence_model(config, sizes),
        resolve=lambda config, model: resolve_numerics(config, model, sizes, ready=True, report=report),
        record={"sequences": digests},
        differs={"sequences": "was trained on other sequences than the dataset gives now; put that data back."},
        made_from={"sequences": digests},
        files={},
        title="A recurrent network for sequences",
        described=[
            ("dataset", data.name),
            ("sequences", f"{counts}; {lengths} timesteps"),
            ("target", describe_target(data)),
        ],
        evaluated="on the validation part",
    )


def describe_target(data: SequenceData) -> str:
    """Return in words what is to be predicted."""
    sizes = data.sizes
    what = (
        f"{sizes.classes} classes" if sizes.classes else "bits" if sizes.loss == "binary-cross-entropy" else "numbers"
    )
    where = "the last timestep" if sizes.target == "last" else "every timestep"
    return f"{sizes.target_size} x {what} at {where}" if sizes.target_size > 1 else f"{what} at {where}"


def tolerance(config: Config, data: SequenceData) -> float | None:
    """Return below which error a number is a hit: by the configuration, or else by the dataset, if it says so."""
    if data.sizes.loss != "mse":
        return None
    own: float | None = getattr(data.dataset, "tolerance", None)
    return own if config.training.tolerance is None else config.training.tolerance
