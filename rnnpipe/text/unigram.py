"""Subwords by a unigram language model (Kudo 2018, "Subword regularization"), through the library SentencePiece."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

from rnnpipe.errors import InputError, UsageError
from rnnpipe.text.subwords import LONGEST_WORD, check_size, trained, untrained
from rnnpipe.text.tokenizing import Tokenizer

_BLANK = "\u2581"  # what SentencePiece writes for a blank
_OUTSIDE = frozenset(f"\t\n\0{_BLANK}")  # characters that it or its input format has a use for: tokens of their own


def unigram(*, size: int = 8000, model: str | None = None) -> Tokenizer:
    """Subwords by the most likely division of a word, each subword having a probability of its own.

    Needs the extra `subwords` (SentencePiece). size: how many subwords are learnt, single characters included. model:
    what `build-dict` has learnt, SentencePiece's own file in base64.
    """
    library = _library()
    if model is None:
        return untrained(lambda counts: learn_unigram(counts, size))
    try:
        data = base64.b64decode(model, validate=True)
        if not data:  # the library takes it for no model at all, and is no use later
            raise ValueError
        processor = library.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, binascii.Error, ValueError):
        raise InputError("tokenizer 'unigram': its model is damaged; build the dictionary again.") from None

    def divide(word: str) -> list[str]:
        if not _OUTSIDE.isdisjoint(word):
            return list(word)
        return [piece.replace(_BLANK, " ") for piece in processor.encode_as_pieces(word)]

    pieces = [processor.id_to_piece(k) for k in range(processor.get_piece_size()) if not processor.is_unknown(k)]
    return trained(divide, tuple(piece.replace(_BLANK, " ") for piece in pieces))


def learn_unigram(counts: Mapping[str, int], size: int) -> str:
    """Return the model of `size` subwords in base64; the same for any order of the counts.

    Raises InputError if the characters alone are as many as `size`, or if the text has too few subwords for it.
    """
    words = sorted((word, number) for word, number in counts.items() if _OUTSIDE.isdisjoint(word))
    check_size(size, len({character for word, _ in words for character in word}), "unigram")
    written = io.BytesIO()
    try:
        _library().SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{number}" for word, number in words),
            input_format="tsv",
            model_writer=written,
            model_type="unigram",
            vocab_size=size + 1,  # and <unk>
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_number=False,
            split_by_unicode_script=False,
            max_sentencepiece_length=LONGEST_WORD // 2,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            unk_id=0,
            num_threads=1,  # sums of floating-point numbers depend on their order
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"tokenizer 'unigram': SentencePiece cannot learn size={size} subwords from this text: "
            f"{' '.join(str(error).split())[-200:]}"
        ) from None
    return base64.b64encode(written.getvalue()).decode()


def _library() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UsageError(
            "tokenizer 'unigram' needs SentencePiece: pip install 'rnnpipe[subwords]'. The tokenizer 'bpe' does not."
        ) from None
    return sentencepiece
