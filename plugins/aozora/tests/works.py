"""A work as the library gives it out, and its text."""

TITLE = "霧の町\n架空の人\n\n"
LEGEND = """\
-------------------------------------------------------
【テキスト中に現れる記号について】

《》：ルビ
（例）霧《きり》

［＃］：入力者注　主に外字の説明や、傍点の位置の指定
（例）※［＃感嘆符疑問符、1-8-78］
-------------------------------------------------------

"""
BODY = "".join(f"　{n}日目も、霧《きり》が｜川辺《かわべ》を隠していた。［＃「川」に傍点］\n" for n in range(1, 41))
FOOTER = "\n\n\n底本：「架空全集　第一巻」架空書房\n　　　1950（昭和25）年1月1日発行\n入力：だれか\n2001年1月1日作成\n"
WORK = TITLE + LEGEND + BODY + FOOTER


def write(path, text, encoding="cp932"):
    """Write a text with the line ends and the encoding of the library; return the path as text."""
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    return str(path)
