"""What the service says in English of a table or its rows, in the language of the page.

The English texts of reasons.toml are the service's own, with a name in braces for what differs; what
stands there is taken over into the Chinese text. A message that is not among them is shown as it is.
"""

from __future__ import annotations

import re
from functools import cache

from faqsearch.ui.common import language, texts

_SLOT = re.compile(r"\\\{(\w+)\\\}")


def told(message: str) -> str:
    """A message of the service in the language of the page."""
    return _chinese(message) if language() == "zh" else message


def _chinese(message: str) -> str:
    for key, pattern in _patterns():
        if match := pattern.fullmatch(message):
            values = {name: _value(name, text) for name, text in match.groupdict().items()}
            return texts()[key][0].format(**values)
    return message


def _value(name: str, text: str) -> str:
    if name == "detail":
        return _chinese(text)
    pair = texts().get(f"import_export.field_{text}") if name == "field" else None
    return pair[0] if pair else text


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    found = []
    for key, (_, english) in texts().items():
        if key.startswith("reasons."):
            pattern = _SLOT.sub(lambda match: f"(?P<{match.group(1)}>.+?)", re.escape(english))
            found.append((key, re.compile(pattern, re.DOTALL)))
    return tuple(found)
