"""A log for the finance sample, as a team at work would leave it: every other hit test is asked and judged.

    python training/team_example.py HOME

Imports the sample into HOME, asks the queries of every other row of data/hit_tests/finance.csv, says of each answer
whether it is right or which entry would have been, and leaves the other rows in HOME/tests.csv: never asked, and so
good to measure with.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from faqsearch import FaqSearch, Settings

DATA = Path(__file__).parent.parent / "data"


def main() -> None:
    """Ask, and say."""
    home = Path(sys.argv[1])
    with (DATA / "hit_tests" / "finance.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    with FaqSearch.open(Settings.load(home)) as faq:
        faq.import_table(DATA / "finance.csv", corpus="finance")
        for row in rows[::2]:
            result = faq.search(row["query"], corpus="finance")
            assert result.query_id
            if not row["key"]:
                faq.give_feedback(result.query_id, "wrong")
                continue
            entry = faq.entry(f"finance/{row['key']}").id
            right = bool(result.hits) and result.hits[0].entry_id == entry
            faq.give_feedback(result.query_id, "right" if right else "instead", entry_id=None if right else entry)
    with (home / "tests.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows[1::2])


if __name__ == "__main__":
    main()
