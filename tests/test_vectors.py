"""Word vectors: each step against the definition, what they learn, their files, and training that begins with them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from cli import KITCHEN, call, damage, fail, settings, succeed
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rnnpipe.data.tokens import TokenFile, load_tokens
from rnnpipe.errors import DivergedError, InputError
from rnnpipe.text.rules import Named, TextRules
from rnnpipe.text.vocabulary import Vocabulary, build_vocabulary, load_vocabulary
from rnnpipe.vectors.exchange import read_word2vec, write_word2vec
from rnnpipe.vectors.folder import Vectors, load_vectors, save_vectors
from rnnpipe.vectors.search import analogy, nearest
from rnnpipe.vectors.word2vec import Settings, _cbow, _skip_gram, _steps, _Text, train_word2vec

Model = Literal["skip-gram", "cbow"]
MODELS: tuple[Model, ...] = ("skip-gram", "cbow")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(number: int) -> Vocabulary:
    counts = {f"w{k:03d}".encode(): 1000 - k for k in range(number)}
    return build_vocabulary(counts, TextRules(Named("none"), Named("whitespace")), unknown_threshold=0)


# --- the steps ---


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def plain_step(
    model: Model,
    text: _Text,
    reach: list[int],
    negatives: np.ndarray,
    vectors: np.ndarray,
    output: np.ndarray,
    s: Settings,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the equations add to the vectors, pair by pair, with the learning rate 1."""
    dx, dy = np.zeros_like(vectors), np.zeros_like(output)
    share = s.negative / s.span
    for t, target in enumerate(text.ids):
        near = [
            c
            for c in range(max(0, t - reach[t]), min(len(text.ids), t + reach[t] + 1))
            if c != t and text.documents[c] == text.documents[t]
        ]
        inputs = [[text.ids[c]] for c in near] if model == "skip-gram" else [[text.ids[c] for c in near]] * bool(near)
        for group in inputs:
            x = np.mean([vectors[i] for i in group], axis=0)
            change = np.zeros_like(x)
            for sign, weight, y in [(1, 1.0, target), *((-1, share, n) for n in negatives[t // s.span] if n != target)]:
                g = weight * sign * sigmoid(-sign * float(x @ output[y]))
                change += g * output[y]
                dy[y] += g * x
            for i in group:
                dx[i] += change
    return dx, dy


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("length", "span", "window"), [(32, 8, 2), (29, 8, 3), (5, 16, 5), (1, 4, 1), (40, 1, 2)])
def test_a_step_is_the_equations(model: Model, length: int, span: int, window: int):
    random = np.random.default_rng(length)
    s = Settings(model, size=6, window=window, span=span, step=10**6, negative=3, sample=1e9)
    text = _Text(random.integers(0, 7, length).astype(np.uint8), (np.arange(length) // 11).astype(np.int32))
    counts = np.bincount(text.ids, minlength=7)
    ((step, share),) = _steps(text, counts, s, np.random.default_rng(3))
    assert share == 1
    again = np.random.default_rng(3)
    again.random(length)  # which tokens stay: all
    reach = again.integers(1, window + 1, (-(-length // span), 1, span), np.int16).reshape(-1).tolist()
    vectors, output = (torch.from_numpy(random.normal(0, 1, (7, 6))) for _ in range(2))
    dx, dy = plain_step(model, text, reach, step.negatives.numpy(), vectors.numpy(), output.numpy(), s)
    before = vectors.clone(), output.clone()
    step = type(step)(step.inputs, step.near.double(), step.negatives)
    originals = torch.Tensor.float
    try:
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
        (_skip_gram if model == "skip-gram" else _cbow)(vectors, output, step, s, 1.0)
    finally:
        torch.Tensor.float = originals  # type: ignore[method-assign]
    assert torch.allclose(vectors - before[0], torch.from_numpy(dx))
    assert torch.allclose(output - before[1], torch.from_numpy(dy))


def test_frequent_tokens_are_thinned_out_and_none_is_lost_without():
    ids = np.concatenate([np.zeros(9000, np.uint8), np.arange(1, 101, dtype=np.uint8).repeat(10)])
    text = _Text(ids, np.zeros(len(ids), np.int32))
    counts = np.bincount(ids)
    for sample, expected in ((1e9, 9000), (1e-3, 9000 * (np.sqrt(1e-3 / 0.9) + 1e-3 / 0.9))):
        steps = _steps(text, counts, Settings(window=1, sample=sample, step=512), np.random.default_rng(0))
        centres = np.concatenate([step.targets(1).reshape(-1).numpy() for step, _ in steps])
        assert abs((centres == 0).sum() - expected) < 60  # and a little padding
        assert abs((centres > 0).sum() - 1000) < 10


# --- what is learnt ---


def two_topics(number: int) -> TokenFile:
    """Return documents each of which is of one of two topics of ten words, the same ten places apart."""
    random = np.random.default_rng(0)
    documents = [random.integers(0, 10, 40) + 10 * (k % 2) for k in range(number)]
    return TokenFile(np.concatenate(documents).astype(np.uint8), np.arange(0, 40 * number, 40))


@pytest.mark.parametrize("model", MODELS)
def test_words_of_one_topic_are_neighbours(model: Model):
    vocabulary = words(20)
    chosen = Settings(model, size=16, epochs=6, sample=1e9, lr=0.02)
    trained = train_word2vec(two_topics(400), vocabulary, chosen)
    vectors = Vectors(vocabulary.tokens, trained.vectors)
    for k, token in enumerate(vocabulary.tokens):
        near = [vocabulary.ids[other] // 10 for other, _ in nearest(vectors, token, 9)]
        assert near == [k // 10] * 9
    again = train_word2vec(two_topics(400), vocabulary, chosen)
    assert (again.vectors == trained.vectors).all()
    other = train_word2vec(two_topics(400), vocabulary, Settings(model, size=16, epochs=1, seed=1))
    assert (other.vectors != trained.vectors).any()


def test_too_high_a_learning_rate_is_told():
    with pytest.raises(DivergedError, match="lower --lr"):
        train_word2vec(two_topics(400), words(20), Settings(size=16, epochs=3, sample=1e9, lr=5, step=512))


def test_progress_hears_of_every_token():
    heard: list[int] = []
    trained = train_word2vec(two_topics(50), words(20), Settings(size=4, epochs=3), heard.append)
    assert sum(heard) == trained.tokens == 50 * 40 * 3


def test_an_analogy_is_the_nearest_to_the_sum():
    rows = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 2, 2], [-1, 0, 0]], np.float32)
    vectors = Vectors(("man", "king", "woman", "queen", "empress", "stone"), rows)
    found = analogy(vectors, "man", "king", "woman")
    assert {token for token, _ in found[:2]} == {"queen", "empress"}
    assert [token for token, _ in found][-1] == "stone"
    assert len(found) == 3


# --- files ---

tokens = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), min_size=1, max_size=6, unique=True
)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(tokens, st.data())
@hypothesis_settings(deadline=None, max_examples=25)
def test_our_own_format_round_trips(names: list[str], data: st.DataObject):
    rows = np.array([[data.draw(numbers) for _ in range(3)] for _ in names], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        save_vectors(Path(folder) / "v", Vectors(tuple(names), rows, {"model": "cbow"}))
        loaded = load_vectors(Path(folder) / "v")
    assert loaded.tokens == tuple(names)
    assert loaded.rows.tobytes() == rows.tobytes()
    assert loaded.made == {"model": "cbow"}


@given(
    tokens.map(lambda names: [n for n in names if not any(c.isspace() for c in n)] or ["a"]), st.booleans(), st.data()
)
@hypothesis_settings(deadline=None, max_examples=40)
def test_word2vecs_formats_round_trip(names: list[str], binary: bool, data: st.DataObject):
    rows = np.array([[data.draw(numbers) for _ in range(2)] for _ in names], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v"
        write_word2vec(path, Vectors(tuple(names), rows), binary=binary)
        loaded = read_word2vec(path, binary=binary)
    assert loaded.tokens == tuple(names)
    assert (loaded.rows == rows).all()


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_and_writes_the_same(binary: bool):
    models = pytest.importorskip("gensim.models", exc_type=ImportError)
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    write_word2vec(Path("ours"), Vectors(("sea", "\u00e9t\u00e9", "\u8a9e"), rows), binary=binary)
    theirs = models.KeyedVectors.load_word2vec_format("ours", binary=binary)
    assert theirs.index_to_key == ["sea", "\u00e9t\u00e9", "\u8a9e"]
    assert np.allclose(theirs.vectors, rows)
    theirs.save_word2vec_format("theirs", binary=binary)
    again = read_word2vec(Path("theirs"), binary=binary)
    assert again.tokens == ("sea", "\u00e9t\u00e9", "\u8a9e")
    assert np.allclose(again.rows, rows)


@given(st.binary(max_size=80), st.booleans(), st.booleans())
@hypothesis_settings(deadline=None)
def test_any_bytes_are_read_or_named(data: bytes, binary: bool, header: bool):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors"
        path.write_bytes((b"2 1\n" if header else b"") + data)
        try:
            vectors = read_word2vec(path, binary=binary)
        except InputError as error:
            assert "vectors" in str(error)
        else:
            assert vectors.rows.shape == (len(vectors.tokens), vectors.size)


@pytest.mark.parametrize(
    ("data", "binary", "said"),
    [
        (b"", False, "line 1: expected `tokens size`"),
        (b"99999999999 99999999999\n", True, "too short"),
        (b"1 2\na 1\n", False, "line 2: expected a token and 2 numbers"),
        (b"1 2\na 1 x\n", False, "line 2: expected a token and 2 numbers"),
        (b"1 1\na nan\n", False, "'a' has a number that is none"),
        (b"2 1\na 1\na 2\n", False, "a token twice"),
        (b"1 1\na 1\nb 2\n", False, "more than the 1 vectors"),
        (b"1 2\na 12345678901", True, "more than"),
        (b"1 2\nabcdefghijklm", True, "ends within a token"),
        (b"1 2\nabcdefgh 1234", True, "ends within a vector"),
    ],
)
def test_a_damaged_file_of_word2vec(data: bytes, binary: bool, said: str):
    Path("v").write_bytes(data)
    assert said in fail("vectors", "import", "v", "--format", "binary" if binary else "text", "-o", "out", code=1)
    assert not Path("out").exists()


# --- the commands ---


@pytest.fixture
def encoded() -> Path:
    succeed("build-dict", KITCHEN, "-o", "kitchen.dict", "--unknown-threshold", 1)
    succeed("encode", KITCHEN, "--dict", "kitchen.dict", "-o", "tokens")
    return Path("tokens")


def test_from_tokens_to_a_network_that_begins_with_them(encoded: Path):
    result = succeed("embed", "kitchen.dict", encoded, "-o", "v", "--size", 8, "--epochs", 2, "--json")
    vocabulary = load_vocabulary(Path("kitchen.dict"))
    part = load_tokens(encoded).part("all").tokens
    assert result.json()["tokens_read"] == 2 * int((part < vocabulary.kept).sum())
    assert "embed: 4,624 of 4,624 tokens" in result.err
    vectors = load_vectors(Path("v"))
    assert vectors.tokens == vocabulary.tokens[: vocabulary.kept]
    assert vectors.made["dictionary"] == vocabulary.digest
    assert succeed("verify", "v").out
    near = succeed("vectors", "near", "v", "the", "a", "-n", 3, "--json").json()
    assert [len(near[word]) for word in ("the", "a")] == [3, 3]
    assert succeed("vectors", "near", "v", "the", "-n", 2).out.startswith("the: ")
    assert len(succeed("vectors", "analogy", "v", "the", "a", "of", "-n", 4, "--json").json()) == 4

    result = succeed("train", encoded, "-o", "run", *settings(model__encoder='{name="embedding", pretrained="v"}'))
    assert f"{vocabulary.kept:,} of {vocabulary.kept:,} tokens have one" in result.err
    config = Path("run/config.toml").read_text(encoding="utf-8")
    assert f'pretrained = "{Path("v").absolute()}"' in config
    assert "size = 8" in config
    assert "up to date" in succeed("train", "run/config.toml", "-o", "run").err
    Path("v").rename("gone")  # a run needs them no more
    succeed("generate", "run", "the", "--max-tokens", 3)
    succeed("verify", "run")
    assert "no vectors of rnnpipe" in fail("train", "run/config.toml", "-o", "other", code=1)


def test_a_network_has_the_vectors_before_its_first_step(encoded: Path):
    succeed("embed", "kitchen.dict", encoded, "-o", "v", "--size", 8, "--epochs", 1)
    vectors = load_vectors(Path("v"))
    save_vectors(Path("some"), Vectors(vectors.tokens[3:], vectors.rows[3:] + 7))
    words = settings(model__encoder='{name="embedding", pretrained="some"}', training__max_steps=1)
    succeed("train", encoded, "-o", "run", *words, "--set", "training.optimizer.lr=1e-9")
    from safetensors.numpy import load_file

    weight = load_file("run/checkpoints/step-1/weights.safetensors")["encoder.weight"]
    assert np.allclose(weight[3:-2], vectors.rows[3:] + 7, atol=1e-5)
    assert np.abs(weight[[0, 1, 2, -2, -1]]).max() < 1


def test_what_does_not_fit_is_refused(encoded: Path):
    succeed("embed", "kitchen.dict", encoded, "-o", "v", "--size", 8, "--epochs", 1)
    train = ("train", encoded, "-o", "run")
    wrong = settings(model__encoder='{name="embedding", pretrained="v", size=9}')
    assert "have 8 numbers" in fail(*train, *wrong, code=2)
    assert "no vectors of rnnpipe" in fail(
        *train, *settings(model__encoder='{name="embedding", pretrained="x"}'), code=1
    )
    wrong = settings(model__encoder='{name="one-hot", pretrained="v"}')
    assert "has no option 'pretrained'" in fail(*train, *wrong, code=2)
    save_vectors(Path("v"), Vectors(("nowhere",), np.ones((1, 8), np.float32)))
    assert "a vector for none" in fail(*train, *settings(model__encoder='{name="embedding", pretrained="v"}'), code=1)
    assert "'thx' has no vector" in fail("vectors", "near", "v", "thx", code=2)
    succeed("build-dict", KITCHEN, "-o", "other.dict")
    assert "was encoded with the dictionary" in fail("embed", "other.dict", encoded, "-o", "w", code=1)
    assert "holds other files" in fail("embed", "kitchen.dict", encoded, "-o", encoded, code=1)


@pytest.mark.parametrize("name", ["vectors.json", "tokens.json", "vectors.safetensors"])
def test_damage_is_found(name: str, encoded: Path):
    succeed("embed", "kitchen.dict", encoded, "-o", "v", "--size", 4, "--epochs", 1)
    damage(Path("v") / name)
    assert name in fail("vectors", "near", "v", "the", code=1)
    result = call("verify", "v")
    assert result.code == 1
    assert name in result.out + result.err


def test_formats_by_the_commands(encoded: Path):
    succeed("embed", "kitchen.dict", encoded, "-o", "v", "--size", 4, "--epochs", 1)
    for form in ("text", "binary"):
        succeed("vectors", "export", "v", "--format", form, "-o", form)
        succeed("vectors", "import", form, "--format", form, "-o", f"{form}-again")
        assert load_vectors(Path(f"{form}-again")).tokens == load_vectors(Path("v")).tokens
        assert (load_vectors(Path(f"{form}-again")).rows == load_vectors(Path("v")).rows).all()
    record = json.loads(Path("text-again/vectors.json").read_text(encoding="utf-8"))
    assert record["made"] == {"imported": "text"}
    save_vectors(Path("blank"), Vectors((" ",), np.ones((1, 2), np.float32)))
    assert "has a blank or line end" in fail("vectors", "export", "blank", "--format", "text", "-o", "x", code=1)
