"""The coefficients of agreement against published tables, libraries and theory; their intervals; what is undefined.

python -m pytest tests/test_agreement.py
"""

import json

import numpy as np
import pytest
from made_ratings import (
    COHEN_1960,
    FLEISS_1971,
    KRIPPENDORFF,
    OBSERVERS,
    VERDICTS,
    drawn,
    of_cells,
    ratings_of,
)
from nltk.metrics.agreement import AnnotationTask

from annotation.agreement.agreement import Agreement, Row, measure_agreement
from annotation.agreement.coefficients import Measure
from annotation.agreement.ratings import Ratings
from annotation.agreement.resampling import Subset, intervals, values

TOLERANCE = 5e-6  # of figures that are published with five digits


def measured(ratings: Ratings) -> dict[Measure, float]:
    return values([Subset(ratings)], ratings.items)[0]


def task(table: np.ndarray) -> AnnotationTask:
    """The same ratings for NLTK."""
    rated = zip(*np.nonzero(table >= 0), strict=True)
    return AnnotationTask(data=[(f"r{j}", f"i{i}", str(table[i, j])) for i, j in rated])


@pytest.mark.parametrize(
    ("table", "categories", "published"),
    [
        # alpha: Krippendorff 2011. The others: Gwet 2014, as irrCAC 0.4.4 gives them.
        (KRIPPENDORFF, 5, {"alpha": 0.743421, "fleiss": 0.761169, "ac1": 0.775444, "percent": 0.818182}),
        # Gwet 2014's table; alpha by krippendorff 0.9.0, the others by irrCAC 0.4.4.
        (OBSERVERS, 4, {"alpha": 0.480530, "fleiss": 0.457622, "ac1": 0.496622, "percent": 0.615556}),
        (FLEISS_1971, 5, {"fleiss": 0.430245, "percent": 0.555556}),  # Fleiss 1971: 0.430 and 0.5556
        (COHEN_1960, 3, {"cohen": 0.491525, "percent": 0.7}),  # Cohen 1960: 0.492
        # Gwet, British Journal of Mathematical and Statistical Psychology 61, 2008: 125 subjects, AC1 0.941
        (of_cells([[118, 5], [2, 0]]), 2, {"cohen": -0.023392, "ac1": 0.940776, "percent": 0.944}),
        # Feinstein and Cicchetti, Journal of Clinical Epidemiology 43, 1990: as much agreement, kappa 0.70 and 0.32
        (of_cells([[40, 9], [6, 45]]), 2, {"cohen": 0.699519, "percent": 0.85}),
        (of_cells([[80, 10], [5, 5]]), 2, {"cohen": 0.318182, "percent": 0.85}),
    ],
)
def test_published_tables(table: np.ndarray, categories: int, published: dict[str, float]) -> None:
    found = measured(ratings_of(table, [str(number) for number in range(categories)]))
    assert {name: found[Measure(name)] for name in published} == pytest.approx(published, abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_as_nltk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, _ = drawn(rng, 60, 4, [0.6, 0.1, 0.3], 0.3)
    found = measured(ratings_of(table, VERDICTS))
    assert found[Measure.FLEISS] == pytest.approx(task(table).pi(), abs=1e-6)
    assert found[Measure.COHEN] == pytest.approx(task(table).kappa(), abs=1e-6), "all share the same number of items"
    assert found[Measure.PERCENT] == pytest.approx(task(table).avg_Ao(), abs=1e-6)
    table[rng.random(table.shape) < 0.4] = -1
    assert measured(ratings_of(table, VERDICTS))[Measure.ALPHA] == pytest.approx(task(table).alpha(), abs=1e-6)


def test_the_mean_kappa_is_weighted_by_shared_items() -> None:
    rng = np.random.default_rng(1)
    table, _ = drawn(rng, 300, 3, [0.5, 0.2, 0.3], 0.3)
    table[:250, 2] = -1
    two_by_two = {}
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        both = table[(table[:, a] >= 0) & (table[:, b] >= 0)][:, [a, b]]
        two_by_two[a, b] = (len(both), task(both).kappa())
    mean = sum(n * kappa for n, kappa in two_by_two.values()) / sum(n for n, _ in two_by_two.values())
    assert measured(ratings_of(table, VERDICTS))[Measure.COHEN] == pytest.approx(mean, abs=1e-6)


def test_theory_is_met_by_reviewers_of_known_error() -> None:
    rng = np.random.default_rng(2)
    for reviewers, error in [(2, 0.05), (3, 0.2), (5, 0.5)]:
        table, theory = drawn(rng, 20_000, reviewers, [0.8, 0.05, 0.15], error)
        assert measured(ratings_of(table, VERDICTS)) == pytest.approx(theory, abs=0.02)


def test_intervals_cover_the_truth_about_95_times_of_100() -> None:
    """Of 200 studies of 80 faces, each interval holds what is true; by binomial spread alone 0.92 to 0.98."""
    rng = np.random.default_rng(3)
    held = dict.fromkeys(Measure, 0)
    for study in range(200):
        table, theory = drawn(rng, 80, 2, [0.7, 0.1, 0.2], 0.2)
        found = intervals([Subset(ratings_of(table, VERDICTS))], 80, resamples=500, seed=study)[0]
        for measure, interval in found.items():
            assert interval.low is not None
            assert interval.high is not None
            held[measure] += interval.low <= theory[measure] <= interval.high
    assert all(0.9 <= count / 200 <= 0.99 for count in held.values()), held


def test_the_answers_of_one_face_are_no_independent_evidence() -> None:
    """Eight copies of each item about one face say no more than one of them."""
    rng = np.random.default_rng(4)
    table, _ = drawn(rng, 60, 2, [0.7, 0.1, 0.2], 0.2)
    once = intervals([Subset(ratings_of(table, VERDICTS))], 60, resamples=500, seed=0)[0]
    eight = ratings_of(np.repeat(table, 8, axis=0), VERDICTS, cluster=np.repeat(np.arange(60), 8))
    copied = intervals([Subset(eight)], 60, resamples=500, seed=0)[0]
    for measure in (Measure.PERCENT, Measure.COHEN, Measure.FLEISS, Measure.AC1):
        assert (copied[measure].low, copied[measure].high) == pytest.approx(
            (once[measure].low, once[measure].high), abs=1e-5
        )


def test_a_seed_gives_the_same_intervals() -> None:
    ratings = ratings_of(drawn(np.random.default_rng(5), 100, 2, [0.7, 0.1, 0.2], 0.2)[0], VERDICTS)
    one, same, other = (measure_agreement(ratings, resamples=200, seed=seed).numbers() for seed in (1, 1, 2))
    assert one == same
    assert one != other


def study(table: np.ndarray, **groups: list[str]) -> Agreement:
    return measure_agreement(ratings_of(table, VERDICTS, **groups), resamples=300)


def missing(row: Row) -> list[Measure]:
    return [measure for measure, estimate in row.estimates.items() if estimate.value is None]


def test_all_of_one_verdict_has_no_kappa_and_says_why() -> None:
    found = study(np.zeros((50, 2), dtype=int))
    assert missing(found.total) == [Measure.COHEN, Measure.FLEISS, Measure.ALPHA]
    percent, ac1 = (found.total.estimates[measure] for measure in (Measure.PERCENT, Measure.AC1))
    assert percent.value == 1
    assert percent.low == pytest.approx(50 / (50 + 1.96**2)), "Wilson's, as resamples cannot differ"
    assert (ac1.value, ac1.low) == (1, None)
    assert any(note.startswith("No kappa and no alpha, everybody said accept") for note in found.notes)
    assert any("all resamples of the faces come out alike" in note for note in found.notes)


def test_nobody_shares_a_pair() -> None:
    table = np.array([[0, -1], [-1, 2]] * 30)
    found = study(table)
    assert missing(found.total) == list(Measure)
    assert found.notes == ("No pair has verdicts of two reviewers.",)
    assert study(table[:0]).total.pairs == 0


def test_two_reviewers_of_one_opinion_each() -> None:
    """One always accepts and one always rejects: kappa is 0, and it is defined."""
    found = study(np.array([[0, 2]] * 40))
    assert found.total.estimates[Measure.COHEN].value == 0
    assert found.total.estimates[Measure.PERCENT].value == 0
    percent = found.total.estimates[Measure.PERCENT]
    assert percent.high == pytest.approx(1.96**2 / (40 + 1.96**2))


def test_pairs_of_reviewers_without_a_kappa_are_left_out_of_the_mean() -> None:
    rng = np.random.default_rng(6)
    table = np.full((120, 3), -1)
    table[:60, :2] = drawn(rng, 60, 2, [0.5, 0.2, 0.3], 0.2)[0]
    table[60:, [0, 2]] = 0
    found = study(table)
    of = {row.name: row for row in found.reviewers}
    assert of["reviewer 1 and reviewer 3"].estimates[Measure.COHEN].value is None
    alone = of["reviewer 1 and reviewer 2"].estimates[Measure.COHEN].value
    assert found.total.estimates[Measure.COHEN].value == pytest.approx(alone)
    assert any(note.startswith("1 of 2 pairs of reviewers have no Cohen's kappa") for note in found.notes)


def test_rare_verdicts_have_no_interval_of_kappa() -> None:
    table = np.zeros((60, 2), dtype=int)
    table[0, 1] = 2
    found = study(table)
    assert found.total.estimates[Measure.FLEISS].value == pytest.approx(-1 / 119)
    assert found.total.estimates[Measure.FLEISS].low is None
    assert found.total.estimates[Measure.AC1].low is not None
    assert any(note.startswith("No intervals of kappa and alpha") for note in found.notes)


def test_the_paradox_of_kappa_is_explained() -> None:
    found = measure_agreement(ratings_of(of_cells([[118, 5], [2, 0]]), ("accept", "reject")), resamples=200)
    assert found.total.is_paradox
    assert found.notes[0].startswith(
        "Reviewers agree in 94%, yet kappa is only -0.03: as 97% of the verdicts are accept"
    )
    assert "Gwet's AC1, 0.94" in found.notes[0]
    balanced = measure_agreement(ratings_of(of_cells([[40, 9], [6, 45]]), ("accept", "reject")), resamples=200)
    assert not balanced.total.is_paradox


def test_groups_are_counted_and_small_ones_say_so() -> None:
    table, _ = drawn(np.random.default_rng(7), 130, 2, [0.7, 0.1, 0.2], 0.2)
    race = ["White"] * 70 + ["Black"] * 40 + ["Latino_Hispanic"] * 12 + [""] * 8
    found = study(table, race=race, age=[""] * 130)
    assert list(found.tables) == ["race"], "nobody's age is known"
    assert [(row.name, row.pairs) for row in found.tables["race"]] == [
        ("White", 70),
        ("Black", 40),
        ("Latino_Hispanic", 12),
        ("unknown", 8),
    ]
    assert missing(found.tables["race"][2]) == list(Measure)
    assert any(
        note == "Not measured, fewer than 20 faces: Latino or Hispanic (12), race unknown (8)." for note in found.notes
    )
    alone = study(table[70:110])
    assert found.tables["race"][1].estimates[Measure.ALPHA].value == alone.total.estimates[Measure.ALPHA].value
    few = study(table[:10])
    assert few.total.estimates[Measure.PERCENT].value is not None
    assert few.total.estimates[Measure.PERCENT].low is None


def test_kept_or_rejected_takes_edits_for_acceptances() -> None:
    table = np.array([[0, 1], [1, 0], [0, 0], [2, 2]] * 20)
    found = study(table)
    assert found.total.estimates[Measure.PERCENT].value == 0.5
    assert found.kept_or_rejected.estimates[Measure.PERCENT].value == 1
    assert found.kept_or_rejected.verdicts == {"kept": 120, "reject": 40}
    assert any(note.startswith("Two edits are the same verdict") for note in found.notes)
    two = measure_agreement(ratings_of(table, VERDICTS), two=True, resamples=100)
    assert two.total == two.kept_or_rejected


def test_numbers_are_plain_json() -> None:
    table, _ = drawn(np.random.default_rng(8), 60, 3, [0.7, 0.1, 0.2], 0.2)
    text = json.dumps(study(table, race=["White"] * 50 + ["Black"] * 10).numbers(), allow_nan=False)
    assert json.loads(text)["tables"]["race"][1]["estimates"]["ac1"] == {
        "value": None,
        "low": None,
        "high": None,
        "why": "not measured, fewer than 20 faces",
    }
