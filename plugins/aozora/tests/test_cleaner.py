"""The cleaner: every kind of mark of the library's manual, one at a time and in a text."""

import pytest
from rnnpipe_aozora.cleaner import aozora

from rnnpipe.testing import check_cleaner
from rnnpipe.text.cleaning import CleaningReport

MARKED = {
    # ruby, on the characters before it or from a base mark on
    "霧《きり》の町": "霧の町",
    "昨日｜川辺《かわべ》の市《いち》で": "昨日川辺の市で",
    "Ａ｜Ｂ｜Ｃ《し》": "Ａ｜ＢＣ",
    "縦線｜だけ": "縦線｜だけ",
    # annotations; a line of nothing else goes, one with text stays
    "［＃３字下げ］朝［＃「朝」は大見出し］\n": "朝\n",
    "前\n［＃改ページ］\n［＃ここから２字下げ］［＃傍点］\n後": "前\n後",
    "\n［＃改丁］\n\n": "\n\n",
    "一［＃（ト）］わたり［＃レ］読": "一わたり読",
    "字［＃「※［＃「口＋喜」、第3水準1-15-18］」に傍点］と": "字と",
    "［これは本文］": "［これは本文］",
    # characters outside the encoding
    "えっ※［＃感嘆符疑問符、1-8-78］": "えっ⁉",
    "※［＃「てへん＋毟」、第4水準2-78-12］る": "毮る",
    "※［＃「くさかんむり／宕」、第3水準1-91-3］《はしりどころ》": "菪",
    "※［＃「にんべん＋尚」、U+5018、235-9］": "倘",
    "※［＃か°、1-4-87］": "か゚",
    "※［＃「馬＋干」、158-7］": "〓",  # a page and a line of the book
    "※［＃「馬＋干」、11-8-78］※［＃「馬＋干」、1-8-785］": "〓〓",
    "※［＃あり得ない、1-99-1］※［＃これも、U+D800］※［＃これも、U+110000］": "〓〓〓",
    "※印と※［＃「※」は行右小書き］": "※印と※",
    "※［＃始め二重山括弧、1-1-52］窓※［＃終わり二重山括弧、1-1-53］《まど》": "《窓》",
    # accents, in brackets that are only then not the author's
    "〔E'tude, Franc,ais, coe&ur, fiance'e, A&ngstro:m, pin~a, mu_, Pay:s, y', Stras&e, sm/o/rrebro/d, ?@que'〕": (
        "Étude, Français, cœur, fiancée, Ångström, piña, mū, Paÿs, ý, Straße, sm/ørrebrød, ¿qué"
    ),
    "〔OE&VRES D'ARTHUR〕": "ŒVRES D'ARTHUR",
    "〔十月〕 it's 5:00 〔10: 30〕": "〔十月〕 it's 5:00 〔10: 30〕",
    # repeat marks
    "だん／″＼、モウ／＼、三／四": "だん〴〵、モウ〳〵、三／四",
    # what has no end within its line is no mark
    "終わらない《るび\n》と［＃注記\n］": "終わらない《るび\n》と［＃注記\n］",
    "［＃「［\n］」］": "［＃「［\n］」］",
}


@pytest.mark.parametrize("marked", MARKED)
def test_marks(marked):
    assert aozora().clean(marked) == MARKED[marked]


def test_the_report_counts_what_went():
    report = CleaningReport()
    aozora().clean("霧《きり》の町［＃改行］※［＃感嘆符疑問符、1-8-78］", report)
    assert report.rules["remove ruby"].dropped == {"《": 1, "き": 1, "り": 1, "》": 1}
    assert report.rules["remove annotations"].dropped.total() == len("［＃改行］")
    assert report.rules["write characters outside the encoding"].replaced == 1
    assert report.rules["write repeat marks"].dropped == {}


def test_conformance():
    check_cleaner(aozora)
