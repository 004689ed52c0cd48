"""`rnnpipe dict show|stats|explain`, and the group that has the other commands on dictionaries."""

from __future__ import annotations

from pathlib import Path

import click

from rnnpipe.cli.build_dict import print_borderline, print_preview, print_summary, threshold_range
from rnnpipe.cli.common import PATH, json_option, print_json, print_table
from rnnpipe.cli.dictionary_exchange import export, import_
from rnnpipe.cli.dictionary_merge import merge, prune


@click.group("dict")
def command() -> None:
    """Show, explain, merge, prune, export and import dictionaries."""


command.add_command(merge)
command.add_command(prune)
command.add_command(export)
command.add_command(import_)


@command.command("show")
@click.argument("dictionary", type=PATH, metavar="DICT")
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True, help="How many tokens.")
@click.option("--unknown", is_flag=True, help="The tokens without an id instead.")
@json_option
def show(dictionary: Path, number: int, unknown: bool, as_json: bool) -> None:
    """Print the most frequent tokens with their ids and counts."""
    from rnnpipe.text.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(dictionary)
    first = vocabulary.kept if unknown else 0
    last = min(first + number, len(vocabulary.tokens) if unknown else vocabulary.kept)
    rows = [(k, vocabulary.tokens[k], vocabulary.counts[k]) for k in range(first, last)]
    if as_json:
        print_json([{"id": None if unknown else k, "token": token, "count": count} for k, token, count in rows])
        return
    table = [("id", "count", "token")]
    table += [("-" if unknown else str(k), f"{count:,}", repr(token)) for k, token, count in rows]
    print_table(table, right=(0, 1))


@command.command("stats")
@click.argument("dictionary", type=PATH, metavar="DICT")
@click.option("--preview", metavar="FIRST:LAST", help="What each unknown threshold from FIRST to LAST would give.")
@json_option
def stats(dictionary: Path, preview: str | None, as_json: bool) -> None:
    """Print size, coverage, unknown rate, rules and what was counted."""
    from rnnpipe.text.vocabulary import load_vocabulary

    thresholds = None if preview is None else threshold_range(preview)
    vocabulary = load_vocabulary(dictionary)
    if thresholds is not None:
        print_preview(vocabulary, thresholds, as_json)
        return
    if as_json:
        print_json({**vocabulary.summary().to_json(), "counted": list(vocabulary.counted)})
        return
    print_summary(vocabulary.summary())
    print_borderline(vocabulary.summary())
    click.echo(f"cleaner {vocabulary.rules.cleaner.brief()}, tokenizer {vocabulary.rules.tokenizer.brief()}")
    for item in vocabulary.counted:
        click.echo(f"counted ({item['part']}): {item['name']}, {item['bytes']:,} bytes, {item['sha256'][:16]}")
    click.echo(f"digest {vocabulary.digest}")


@command.command("explain")
@click.argument("dictionary", type=PATH, metavar="DICT")
@click.argument("text", metavar="WORD")
@json_option
def explain(dictionary: Path, text: str, as_json: bool) -> None:
    """Print what each cleaning rule does to WORD, its count, and whether it has an id."""
    from rnnpipe.pipeline.common import load_rules
    from rnnpipe.text.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(dictionary)
    rules = load_rules(vocabulary.rules.cleaner, vocabulary.rules.tokenizer)
    steps = rules.cleaner.explain(text)
    tokens = rules.tokenizer.split(steps[-1][1] if steps else text)
    counts = dict(zip(vocabulary.tokens, vocabulary.counts, strict=True))
    verdicts = []
    for token in tokens:
        count = counts.get(token, 0)
        if token in vocabulary.ids:
            verdict = f"known, id {vocabulary.ids[token]}"
        elif count > vocabulary.unknown_threshold:
            verdict = f"unknown: not among the {vocabulary.max_size} most frequent"
        else:
            rare = f"seen at most {vocabulary.unknown_threshold} times"
            gone = f"never seen, or {rare} and pruned" if vocabulary.left_out.types else "never seen"
            verdict = f"unknown: {rare if count else gone}"
        verdicts.append({"token": token, "count": count, "id": vocabulary.ids.get(token), "verdict": verdict})
    if as_json:
        print_json({"text": text, "rules": [{"rule": r, "result": t} for r, t in steps], "tokens": verdicts})
        return
    before = text
    for rule, after in steps:
        click.echo(f"{rule}: {'unchanged' if after == before else f'{before!r} -> {after!r}'}")
        before = after
    for v in verdicts:
        click.echo(f"{v['token']!r}: count {v['count']:,}, {v['verdict']}")
    if not verdicts:
        click.echo("no token is left of it")
