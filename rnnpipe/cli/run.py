"""`rnnpipe run`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli.common import PATH, json_option


@click.command("run")
@click.argument("config", metavar="CONFIG.toml")
@click.option("-o", "--output", type=PATH, metavar="RUN", help="Folder of the run. [runs/NAME of the file]")
@click.option("--from", "first", metavar="STAGE", help="Run from this stage on even if it is up to date.")
@click.option(
    "--to", "last", metavar="STAGE", default="eval", show_default=True, help="Run no further than this stage."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key, as in model.hidden_size=512.")
@click.option("--dry-run", is_flag=True, help="Check and print the configuration and the stages; run nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there.")
@json_option
def command(
    config: str,
    output: Path | None,
    first: str | None,
    last: str,
    settings: tuple[str, ...],
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run all stages of a configuration: clean, build-dict, encode, train, eval.

    A stage is skipped while its settings and the text behind it are unchanged.
    """
    from dataclasses import replace

    from rnnpipe.cli.train import execute, existing
    from rnnpipe.config import apply_settings, load_config
    from rnnpipe.pipeline.complete import complete
    from rnnpipe.pipeline.stages import Plan

    path = existing(config)
    loaded = replace(load_config(path), numerics={})
    # The config.toml inside a run means that run.
    own = path.parent if path.name == "config.toml" else Path("runs") / path.stem
    execute(complete(apply_settings(loaded, settings)), output or own, Plan(first, last), dry_run, overwrite, as_json)
