"""The folding that both sides of a match go through."""

from __future__ import annotations

import csv
import unicodedata

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from faqsearch.text import normalise

# Traditional and Simplified characters, words that OpenCC's phrase tables know, signs in all widths,
# letters whose case folding or NFKC is not one character for one, and every kind of white space.
PIECES = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
    st.sampled_from(
        [
            *("资讯", "資訊", "檔案", "档案", "登錄", "登录", "軟體", "网络", "網路", "什麼", "还款么", "停用", "禁用"),
            *(
                "尼日利亚",
                "奈及利亞",
                "計程車",
                "出租车",
                "乾隆",
                "乾淨",
                "頭髮",
                "发现",
                "後",
                "皇后",
                "裡",
                "着",
                "著",
            ),
            *(
                "ＡＰＰ",
                "ß",
                "ﬁ",
                "İ",
                "ϓ",
                "ͅ",
                "℡",
                "①",
                "㍿",
                "Ⅷ",
                "　",
                "\u00a0",
                "\t",
                "\r\n",
                "\u2028",
                "？",
                "\ufeff",
            ),
        ]
    ),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("ＡＰＰ登录，１２３？", "app登录,123?"),  # full width
        ("ﬁnance ﬀ ①㈱", "finance ff 1(株)"),  # ligatures and circled signs
        ("Straße ΣΊΣΥΦΟΣ", "strasse σίσυφοσ"),  # folding, not lower case
        ("e\u0301", "é"),
        ("℡ ＴＥＬ", "tel tel"),
        ("  怎么\u3000\u3000还款\t\n今天\u00a0好\u2028吗 ", "怎么 还款 今天 好 吗"),
        ("\u3000 \t\r\n", ""),
        ("", ""),
    ],
)
def test_width_case_and_white_space_are_folded(written: str, folded: str) -> None:
    assert normalise(written) == folded


@pytest.mark.parametrize(
    ("traditional", "simplified"),
    [
        ("信用卡怎麼還款？", "信用卡怎么还款?"),
        ("查詢帳單", "查找帐单"),
        ("資訊", "信息"),
        ("請上傳檔案", "请上传文件"),
        ("登錄密碼", "登录密码"),
        ("下載軟體", "下载软件"),
        ("網路銀行", "网络银行"),
        ("計程車費用報銷", "出租车费用报销"),
        ("乾淨的頭髮", "干净的头发"),
        ("還沒收到什麼時候發貨", "还没收到什么时候发货"),
    ],
)
def test_traditional_text_becomes_simplified_with_the_mainlands_words(traditional: str, simplified: str) -> None:
    assert normalise(traditional) == simplified


@pytest.mark.parametrize(
    "text",
    [
        *(
            "还款么",
            "停用",
            "尼日利亚",
            "什么时候还款",
            "乾坤",
            "乾隆年间",
            "皇后",
            "干杯",
            "发现头发",
            "看着办",
            "瞭望塔",
        ),
        *("账号登陆不了", "帐号被停用了么", "知识产权", "程序", "打印文件", "份子钱", "黏土", "慰藉", "复杂的沈阳"),
    ],
)
def test_simplified_text_is_not_touched_by_the_chinese_conversion(text: str) -> None:
    assert normalise(text) == text


@pytest.mark.parametrize("name", ["general", "open_domain", "finance"])
def test_no_sample_question_in_simplified_chinese_is_touched(name: str) -> None:
    with (ROOT / "data" / f"{name}.csv").open(encoding="utf-8-sig", newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row if cell]

    assert len(cells) > 800
    folded = {cell: " ".join(unicodedata.normalize("NFKC", cell).casefold().split()) for cell in cells}
    assert {cell: normalise(cell) for cell in cells} == folded


@settings(deadline=None)  # the first one loads the dictionaries
@given(TEXTS)
def test_normalise_is_idempotent(text: str) -> None:
    once = normalise(text)

    assert normalise(once) == once


@settings(deadline=None)
@given(TEXTS)
def test_what_is_folded_away_does_not_count(text: str) -> None:
    padded = f" \u3000{text}\t\n"

    assert normalise(padded) == normalise(text)
    assert normalise(unicodedata.normalize("NFKC", text)) == normalise(text)


@settings(deadline=None)
@given(TEXTS)
def test_a_folded_text_has_single_spaces_only_and_none_at_its_ends(text: str) -> None:
    folded = normalise(text)

    assert folded == " ".join(folded.split())
    assert unicodedata.is_normalized("NFKC", folded)
