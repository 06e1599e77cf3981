"""Rebuilding an index: in full beside the encoding alone, and after a change of one in a hundred."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.common import CORPUS, build, median, report, sample_questions, seconds, write_table
from faqsearch import EntryDraft, FaqSearch
from faqsearch.registry import load_encoder
from faqsearch.text import normalise


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    questions = sample_questions(options.questions)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = build(home, options.questions)
        encoder = load_encoder(device=settings.device)
        folded = [normalise(question) for question in questions]
        encoder.encode(folded[:5_000])
        names = (
            "encoding alone",
            "rebuild --full",
            "rebuild, 1% changed",
            "rebuild, nothing changed",
            "adding an entry",
        )
        found: dict[str, list[float]] = {name: [] for name in names}
        with FaqSearch.open(settings) as faq:
            faq.search(questions[0], corpus=CORPUS)
            for turn in range(options.rounds):
                found["encoding alone"].append(seconds(lambda: encoder.encode(folded)))
                found["rebuild --full"].append(seconds(lambda: faq.rebuild(CORPUS, full=True)))
                changed = [
                    f"{text}（第{turn + 1}次改）" if number % 100 == turn else text
                    for number, text in enumerate(questions)
                ]
                faq.import_table(write_table(home / "changed.csv", changed), corpus=CORPUS, sync=False)
                found["rebuild, 1% changed"].append(seconds(lambda: faq.rebuild(CORPUS)))
                found["rebuild, nothing changed"].append(seconds(lambda: faq.rebuild(CORPUS)))
                draft = EntryDraft(question=f"新加的第{turn}个问题", answer="答案")
                found["adding an entry"].append(seconds(lambda draft=draft: add(faq, draft)))  # type: ignore[misc]
    full, base = median(found["rebuild --full"]), median(found["encoding alone"])
    report(
        "rebuilding",
        f"Rebuilding the index of {options.questions:,} questions",
        ["what", "seconds", "of encoding alone", "of rebuild --full"],
        [[name, median(values), median(values) / base, median(values) / full] for name, values in found.items()],
    )


def add(faq: FaqSearch, draft: EntryDraft) -> None:
    """Add an entry and find it."""
    faq.add_entry(CORPUS, draft)
    assert faq.search(draft.question, corpus=CORPUS).hits[0].question == draft.question


if __name__ == "__main__":
    main()
