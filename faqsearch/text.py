"""The one text normalisation, for matching only: what is stored and shown stays as it was written.

Both sides are folded alike: the stored question when it is compared and encoded, and the query.
A change here changes vectors and the folded texts in the database: raise NORMALISATION and add a
migration that folds the stored questions again (index versions of another normalisation are
rebuilt in full by themselves).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Protocol, cast

NORMALISATION = 1
"""Version of the folding; every index manifest records the one that it was built with."""


class _Converter(Protocol):
    def convert(self, text: str) -> str: ...


@lru_cache(maxsize=4096)
def normalise(text: str) -> str:
    """Fold a question for matching. Idempotent.

    NFKC (full-width signs, ligatures), letter case, white space (runs become one space, none at
    the ends), Traditional to Simplified Chinese. The last few thousand are remembered: an import folds a
    text when it checks it, drops repeated ones, and saves it.

        >>> normalise("  信用卡ＡＰＰ　怎麼 登錄？ ")
        '信用卡app 怎么 登录?'
    """
    # Case folding can leave NFKC ("ﬀ", "ϓ"), and NFKC can bring capitals back ("℡" → "TEL").
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).casefold()
    text = " ".join(text.replace("\0", " ").split())  # OpenCC would stop at a NUL
    return _simplify(text)


def _simplify(text: str) -> str:
    """Traditional Chinese, Taiwan's words included, to Simplified; Simplified text as it is.

    OpenCC's `tw2sp` takes every input for Traditional: on Simplified questions it turns 还款么 into
    还款幺, 停用 into 禁用 and 尼日利亚 into 尼日尔利亚 (1.7% of 312,000 real questions), and is not
    idempotent. So it is applied only to text in which `t2s` finds a Traditional character.
    """
    if text.isascii():
        return text
    t2s, tw2sp = _converters()
    simplified = t2s.convert(text)
    if simplified == text:
        return text
    return t2s.convert(tw2sp.convert(text))


@lru_cache(maxsize=1)
def _converters() -> tuple[_Converter, _Converter]:
    # Loaded at the first use: reading OpenCC's dictionaries takes tens of milliseconds.
    import opencc

    return cast(_Converter, opencc.OpenCC("t2s")), cast(_Converter, opencc.OpenCC("tw2sp"))
