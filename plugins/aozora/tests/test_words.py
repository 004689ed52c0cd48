"""The tokenizer: nothing lost, lines on their own, any number of workers, and a clear word where the analyser lacks."""

import random
import subprocess
import sys

import pytest
from rnnpipe_aozora.words import japanese_words

from rnnpipe.errors import UsageError
from rnnpipe.testing import check_tokenizer

TEXT = "　霧が川辺の町を隠していた。「朝だ。」と私は言った。\n\n国家公務員になりました。\n"


@pytest.fixture
def analyser():
    pytest.importorskip("sudachipy", reason="the extra `words` is not installed")
    pytest.importorskip("sudachidict_small", reason="the extra `words` is not installed")


@pytest.mark.usefixtures("analyser")
def test_words():
    words = japanese_words().split(TEXT)
    assert words[:9] == ["　", "霧", "が", "川辺", "の", "町", "を", "隠し", "て"]
    assert words[-1] == "\n" and words.count("\n") == 3
    assert japanese_words(mode="A").split("町へ出かける。") == ["町", "へ", "出", "かける", "。"]
    assert japanese_words(mode="C").split("町へ出かける。") == ["町", "へ", "出かける", "。"]


@pytest.mark.usefixtures("analyser")
@pytest.mark.parametrize("mode", ["A", "C"])
def test_the_words_put_together_are_the_text(mode):
    tokenizer = japanese_words(mode=mode)
    assert tokenizer.lossless
    generator = random.Random(0)
    pool = [*"霧あア、。「」　 \t\n\rａ9'ー〓々〻㍿㌔ﷺ\U00020b9f", "か゚", "国家公務員", "だん〴〵", "👨‍👩‍👧"]
    for _ in range(300):
        text = "".join(generator.choices(pool, k=generator.randrange(30)))
        words = tokenizer.split(text)
        assert "".join(words) == text
        assert all(words)


@pytest.mark.usefixtures("analyser")
def test_lines_are_on_their_own_and_may_be_long():
    tokenizer = japanese_words()
    first, second = "霧が晴れた", "東京都に住む"
    assert tokenizer.split(f"{first}\n{second}") == [*tokenizer.split(first), "\n", *tokenizer.split(second)]
    for text in ("ﷺ" * 3000, "。" * 3000, "霧" * 60_000):  # the first is 18 times as long for the analyser
        assert "".join(tokenizer.split(text)) == text


@pytest.mark.parametrize("module", ["sudachipy", "sudachidict_small"])
def test_without_the_analyser_one_error_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match="pip install sudachipy sudachidict-small"):
        japanese_words()


@pytest.mark.usefixtures("analyser")
def test_the_dictionary_is_the_same_for_any_number_of_workers(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 20)
    for workers in "12":
        words = ["build-dict", text, "--cleaner", "aozora", "--tokenizer", "japanese-words", "--workers", workers]
        command = [sys.executable, "-m", "rnnpipe", *map(str, words), "-o", f"{workers}.dict"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "1.dict").read_bytes() == (tmp_path / "2.dict").read_bytes()


@pytest.mark.usefixtures("analyser")
def test_conformance():
    check_tokenizer(japanese_words)
