"""No false assurance over all models with a reference: see ``benchmarks/verdicts.py``."""

import pytest

from benchmarks.verdicts import JUDGED, judged, rows_of


@pytest.mark.slow
@pytest.mark.parametrize("name", JUDGED)
def test_no_verdict_assures_falsely(name):
    rows = list(rows_of(name))

    for row in rows:
        print(name, *row)
    assert rows
    assert [row for row in rows if row.outcome == "false assurance"] == []


def test_what_counts_as_what():
    assert judged("reliable", 0.1, 5.0) == "hit"
    assert judged("reliable", 0.4, 0.0) == "false assurance"
    assert judged("reweight", 0.4, 0.1) == "hit"
    assert judged("reweight", 0.1, 0.4) == "false assurance"
    assert judged("doubtful", 0.4, 0.0) == "right alarm"
    assert judged("misses mass", 0.1, 0.4) == "false alarm"
