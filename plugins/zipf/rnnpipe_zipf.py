"""`rnnpipe zipf`: Zipf's law fitted to the counts of a dictionary, as a command for rnnpipe.

Only click is imported with the module: the command is loaded to print its help, too.
"""

from pathlib import Path

import click


@click.command("zipf")
@click.argument("dictionary", type=click.Path(path_type=Path), metavar="DICT")
@click.option("--ranks", type=click.IntRange(min=1), default=20, show_default=True, help="How many ranks to print.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(dictionary: Path, ranks: int, as_json: bool) -> None:
    """Fit Zipf's law to the counts of the dictionary DICT.

    The token of rank r is expected total * r^-s / (1^-s + ... + V^-s) times, with V types; the exponent s is the most
    likely one. All types count, those without an id too. Printed ranks are evenly spaced in their logarithm, from the
    first to the last.
    """
    import numpy as np

    from rnnpipe.cli.common import print_json, print_table
    from rnnpipe.errors import InputError
    from rnnpipe.text.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(dictionary)
    types, total = len(vocabulary.tokens), vocabulary.total
    if types < 2:
        raise InputError(f"{dictionary}: has {types} types; a law of ranks needs 2 or more. Count more text.")
    exponent = fit_exponent(vocabulary.counts)
    shares = np.arange(1, types + 1) ** -exponent
    expected = total * shares / shares.sum()
    once = sum(count == 1 for count in vocabulary.counts)
    shown = np.unique(np.geomspace(1, types, min(ranks, types)).round().astype(int)).tolist()
    rows = [(r, vocabulary.counts[r - 1], float(expected[r - 1]), vocabulary.tokens[r - 1]) for r in shown]
    if as_json:
        table = [{"rank": r, "count": count, "predicted": p, "token": token} for r, count, p, token in rows]
        print_json({"exponent": exponent, "tokens": total, "types": types, "once": once, "ranks": table})
        return
    lines = [(f"{r:,}", f"{count:,}", f"{p:,.1f}", repr(token)) for r, count, p, token in rows]
    print_table([("rank", "count", "predicted", "token"), *lines], right=(0, 1, 2))
    click.echo(f"exponent {exponent:.4f} (maximum likelihood), {total:,} tokens, {types:,} types")
    click.echo(f"{once:,} types seen once: of further text, about {once / total:.2%} would be new types (Good 1953)")


def fit_exponent(counts):
    """Return the exponent s >= 0 under which counts, in descending order, are most likely.

    The tokens are taken as independent draws of a rank r with p(r) = r^-s / sum over k of k^-s. The likelihood is
    largest where the mean of ln r over p is the mean over the tokens; the former falls as s grows, so s is bisected.
    Least squares on the logarithms of ranks and counts would be biased by the many ranks of rare types (Clauset,
    Shalizi & Newman 2009, "Power-law distributions in empirical data").
    """
    import numpy as np

    logs = np.log(np.arange(1, len(counts) + 1))
    observed = np.average(logs, weights=np.asarray(counts, dtype=float))
    low, high = 0.0, 1.0
    while np.average(logs, weights=np.exp(-high * logs)) > observed:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if np.average(logs, weights=np.exp(-middle * logs)) > observed:
            low = middle
        else:
            high = middle
    return high
