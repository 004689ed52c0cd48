"""The peers of the corpus benchmark, each a whole process: `python -m rnnpipe.bench.peers NAME FILE [DICT]`.

All use the rules of `ascii-words` and an unknown threshold of 3.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

THRESHOLD = 3


def published(path: Path) -> int:
    """Count as the published program does: read the whole file, `re.sub`, split, `Counter`."""
    text = path.read_text(encoding="utf-8").lower().replace("\n", " ")
    text = re.sub(r"[^a-z '\-]", "", text)
    text = re.sub(r"[ ]+", " ", text)
    counts = Counter(word for word in text.split() if not word.startswith("-"))
    return sum(number > THRESHOLD for number in counts.values())


def polars_build(path: Path) -> int:
    """Count with Polars: a line a row, the rules as expressions, grouped and counted in its streaming engine."""
    import polars as pl

    lines = pl.scan_csv(path, has_header=False, new_columns=["line"], separator="\x01", quote_char=None)
    letters = pl.col("line").str.to_lowercase().str.replace_all(r"[^a-z '\-]", "")
    words = lines.select(letters.str.split(" ").alias("word")).explode("word").filter(pl.col("word") != "")
    counts = words.filter(~pl.col("word").str.starts_with("-")).group_by("word").len()
    return len(counts.filter(pl.col("len") > THRESHOLD).collect(engine="streaming"))


def duckdb_build(path: Path) -> int:
    """Count with DuckDB: a line a row, the rules as SQL."""
    import duckdb

    query = r"""
        SELECT count(*) FROM (
            SELECT word FROM (
                SELECT unnest(string_split(regexp_replace(lower(line), '[^a-z ''\-]', '', 'g'), ' ')) AS word
                FROM read_csv(?, columns = {'line': 'VARCHAR'}, delim = '\x01', quote = '', escape = '',
                              header = false, auto_detect = false, strict_mode = false)
            )
            WHERE word <> '' AND NOT starts_with(word, '-')
            GROUP BY word HAVING count(*) > ?
        )
    """
    found = duckdb.execute(query, [str(path), THRESHOLD]).fetchone()
    return int(found[0]) if found else 0


def _tokenizer(vocabulary: dict[str, int] | None) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    lower, keep = normalizers.Lowercase(), normalizers.Replace(Regex(r"[^a-z '\-\n]"), "")
    tokenizer.normalizer = normalizers.Sequence([lower, keep])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def tokenizers_build(path: Path) -> int:
    """Train the word-level model of Hugging Face `tokenizers`."""
    from tokenizers import trainers

    tokenizer = _tokenizer(None)
    trainer = trainers.WordLevelTrainer(
        vocab_size=10**7, min_frequency=THRESHOLD + 1, show_progress=False, special_tokens=["<unk>"]
    )
    tokenizer.train([str(path)], trainer)
    return len(tokenizer.get_vocab())


def tokenizers_encode(path: Path, dictionary: Path) -> int:
    """Encode with the word-level model of Hugging Face `tokenizers`, 4 MB of lines at a time."""
    from rnnpipe.text.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(dictionary)
    tokenizer = _tokenizer({**vocabulary.ids, "<unk>": vocabulary.size})
    count = 0
    with path.open(encoding="utf-8") as file:
        while lines := file.readlines(1 << 22):
            count += sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(lines))
    return count


PEERS = {
    "duckdb-build": duckdb_build,
    "polars-build": polars_build,
    "published": published,
    "tokenizers-build": tokenizers_build,
    "tokenizers-encode": tokenizers_encode,
}

if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    PEERS[name](*map(Path, paths))  # type: ignore[operator]
