"""Orders, filters, search and counts of the review queue, against the same done by hand in Python.

python -m pytest tests/test_queue.py
"""

import csv
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.balance import spread
from annotation.checks.findings import Finding
from annotation.models import FREE_QUESTION, Action, PairInput, Severity, Status
from annotation.pair_filter import PairFilter
from annotation.review_queue import Order
from annotation.store import PairView, Store
from facellm.data import Attribute
from facellm.errors import DataError
from tests.made_team import decide, face

RACES, GENDERS, AGES = ("Black", "East Asian", "White"), ("Female", "Male"), ("20-29", "30-39", "more than 70")
WORDS = ("wrinkles", "smiling", "grey hair", "bright light", "turned left", "a calm look")
FAIRFACE = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "fairface_label_val.csv"


@pytest.fixture
def store(data_dir: Path, database: str) -> Iterator[Store]:
    opened = Store.open(data_dir, database)
    yield opened
    opened.close()


def fill(store: Store, rng: random.Random, number: int) -> None:
    """Faces with labels, some without; flags and decisions on some of their pairs."""
    faces = []
    for index in range(number):
        labels = {"race": rng.choice(RACES), "gender": rng.choice(GENDERS), "age": rng.choice(AGES)}
        labels = {name: value for name, value in labels.items() if rng.random() < 0.9}
        faces.append(face(index, labels, {each: f"{rng.choice(WORDS)} and {rng.choice(WORDS)}." for each in Attribute}))
    store.ingest(faces)
    ids = range(1, 8 * number + 1)
    flagged = rng.sample(ids, 2 * number)
    found = {pair: [Finding(rng.choice(["leak", "refusal"]), rng.choice(list(Severity)), "Why.")] for pair in flagged}
    store.replace_flags(("leak", "refusal"), found, dict.fromkeys(flagged, 0))
    for pair in rng.sample(ids, 3 * number):
        action = rng.choice([Action.ACCEPT, Action.REJECT, Action.SKIP, Action.EDIT])
        decide(store, rng.choice(["ana", "ben"]), pair, action, text="Squinting." if action is Action.EDIT else None)


def place(view: PairView, order: Order) -> tuple[int, ...]:
    """By what a pair comes before another."""
    pair = view.pair
    first = {
        Order.IMAGE: (pair.image_id,),
        Order.SHUFFLED: (pair.shuffle,),
        Order.SUSPICIOUS: (-pair.suspicion, pair.image_id),
        Order.BALANCED: (pair.balance or 0,),
    }
    return (*first[order], pair.id or 0)


def everything(store: Store) -> list[PairView]:
    return store.pairs(range(1, 8 * store.image_count() + 1))


def fits(view: PairView, which: PairFilter) -> bool:
    pair = view.pair
    wanted = [getattr(which, name) in (None, getattr(pair, name)) for name in ("race", "gender", "age", "attribute")]
    names = {flag.check for flag in view.flags}
    flag = {None: True, "any": bool(names), "none": not names}.get(which.flag, which.flag in names)
    by = which.reviewer is None or which.reviewer in {verdict.reviewer for verdict in view.verdicts}
    text = which.text is None or all(word in view.answer.lower() for word in which.text.split())
    return all(wanted) and flag and by and text and (not which.status or pair.status in which.status)


def some_filter(rng: random.Random) -> PairFilter:
    fields = {
        "race": rng.choice(RACES),
        "gender": rng.choice(GENDERS),
        "age": rng.choice(AGES),
        "attribute": rng.choice(list(Attribute)),
        "flag": rng.choice(["any", "none", "leak", "refusal"]),
        "status": (rng.choice([Status.PENDING, Status.ACCEPTED, Status.EDITED, Status.SKIPPED]),),
        "reviewer": rng.choice(["ana", "ben", "nobody"]),
        "text": rng.choice(["grey", "squinting", "calm look", "nowhere"]),
    }
    return PairFilter(**{name: fields[name] for name in rng.sample(list(fields), rng.randint(0, 3))})


def test_every_filter_and_order_gives_what_python_finds(store: Store) -> None:
    rng = random.Random(5)
    fill(store, rng, 30)
    views = everything(store)
    for _ in range(60):
        which, order = some_filter(rng), rng.choice(list(Order))
        shown: list[PairView] = []
        while page := store.browse(which, order, exclude=[view.pair.id or 0 for view in shown], limit=17):
            shown += page
        expected = {view.pair.id for view in views if fits(view, which)}
        assert {view.pair.id for view in shown} == expected and len(shown) == len(expected), which
        places = [place(view, order) for view in shown]
        assert places == sorted(places)


def test_claims_take_the_open_ones_of_a_filter_in_order(store: Store) -> None:
    rng = random.Random(6)
    fill(store, rng, 20)
    for number in range(30):
        which, order, who = some_filter(rng), rng.choice(list(Order)), f"r{number}"
        claimed = store.claim(who, "w", which, order, limit=9)
        store.release(who)
        open_ones = which.model_copy(update={"status": ()})
        expected = [view for view in everything(store) if view.pair.status.is_open and fits(view, open_ones)]
        expected.sort(key=lambda view: place(view, order))
        assert [view.pair.id for view in claimed] == [view.pair.id for view in expected[:9]], (which, order)


def test_facets_count_what_another_choice_would_give(store: Store) -> None:
    rng = random.Random(7)
    fill(store, rng, 25)
    views = everything(store)
    for _ in range(30):
        which = some_filter(rng)
        facets = store.facets(which)
        for name in ("race", "gender", "age", "attribute", "status"):
            rest = which.model_copy(update={name: () if name == "status" else None})
            counted = Counter(getattr(view.pair, name) for view in views if fits(view, rest))
            counted.pop("", None)
            assert facets[name] == {str(value): number for value, number in counted.items()}, (which, name)
        rest = which.model_copy(update={"flag": None})
        flags = Counter(name for view in views if fits(view, rest) for name in {flag.check for flag in view.flags})
        assert facets["flag"] == dict(flags)


def test_free_questions_are_a_facet_and_a_filter(store: Store) -> None:
    store.ingest([face(1, {"race": "White"}, {Attribute.POSE: "Left."})])
    free = PairInput(attribute=None, question="Why?", answer="So.", teacher="t", prompt_version="1")
    store.ingest([face(2, {}, {}).model_copy(update={"pairs": (free,)})])
    assert store.facets()["attribute"] == {"pose": 1, FREE_QUESTION: 1}
    assert [view.pair.question for view in store.browse(PairFilter(attribute=FREE_QUESTION))] == ["Why?"]
    assert [view.pair.question for view in store.browse(PairFilter(attribute=FREE_QUESTION), Order.BALANCED)] == [
        "Why?"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wrinkle", {1}),  # by its stem
        ("GREY hair", {2, 3}),
        ('"grey hair"', {2}),
        ("hair -grey", {4}),
        ("hair* OR skin)", set()),  # words, not syntax
        ("hair'); DROP TABLE pairs; --", set()),
    ],
)
def test_search_takes_words_phrases_and_exclusions(store: Store, text: str, expected: set[int]) -> None:
    answers = ["Deep wrinkles.", "Short grey hair.", "The hair is grey.", "Brown hair.", "Fair skin."]
    store.ingest([face(number, {}, {Attribute.DETAIL: answer}) for number, answer in enumerate(answers)])
    assert {view.pair.id for view in store.browse(PairFilter(text=text))} == expected


def test_search_finds_the_answer_that_stands(store: Store) -> None:
    store.ingest([face(1, {}, {Attribute.DETAIL: "A moustache."})])
    edit = decide(store, "ana", 1, Action.EDIT, text="A beard.")

    def found(word: str) -> int:
        return len(store.browse(PairFilter(text=word)))

    assert (found("moustache"), found("beard")) == (0, 1)
    decide(store, "ana", 1, Action.UNDO, undoes=edit.uuid)
    assert (found("moustache"), found("beard")) == (1, 0)


@pytest.mark.parametrize("text", ["...", "-grey", '""'])
def test_a_search_without_a_word_says_so(store: Store, text: str) -> None:
    with pytest.raises(DataError, match="no word to look for"):
        store.browse(PairFilter(text=text))


def test_a_place_in_the_balanced_order_never_changes(store: Store) -> None:
    fill(store, random.Random(8), 10)
    first = {view.pair.id: view.pair.balance for view in store.browse(PairFilter(), Order.BALANCED, limit=80)}
    store.ingest([face(100 + n, {"race": "Indian"}, dict.fromkeys(Attribute, "New.")) for n in range(5)])
    later = {view.pair.id: view.pair.balance for view in store.browse(PairFilter(), Order.BALANCED, limit=200)}
    assert len(later) == 120 and None not in later.values()
    assert first == {pair_id: later[pair_id] for pair_id in first}


@pytest.mark.skipif(not FAIRFACE.is_file(), reason="FairFace's labels are not there")
@pytest.mark.parametrize("attribute", [None, Attribute.SKIN])
def test_on_fairface_every_group_has_its_share_within_two_points_at_any_stop(
    data_dir: Path, attribute: Attribute | None
) -> None:
    """Until the rarest cell has run out; from then on its share goes to the others."""
    store = Store.open(data_dir)
    with FAIRFACE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = ("race", "gender", "age")
    answers = dict.fromkeys(Attribute, "An answer.")
    store.ingest([face(n, {name: row[name] for name in groups}, answers) for n, row in enumerate(rows)])
    cells = Counter(tuple(row[name] for name in groups) for row in rows)
    until = min(cells.values()) * len(cells) * (1 if attribute else len(Attribute))
    shown = store.browse(PairFilter(attribute=attribute), Order.BALANCED, limit=max(1000, until))[:until]
    targets = {name: Counter(cell[place] for cell in cells) for place, name in enumerate(groups)}
    seen: dict[str, Counter[str]] = {name: Counter() for name in groups}
    worst = 0.0
    for number, view in enumerate(shown, start=1):
        for name in groups:
            seen[name][getattr(view.pair, name)] += 1
            if number >= 100:
                shares = [abs(seen[name][value] / number - of / len(cells)) for value, of in targets[name].items()]
                worst = max(worst, *shares)
    store.close()
    assert len(shown) >= 126
    assert worst <= 0.02


def test_cells_are_spread_so_that_no_group_comes_in_clusters() -> None:
    cells = [(race, gender, age) for race in "ABCDEFG" for gender in "fm" for age in "123456789"]
    order = list(spread(cells))
    assert sorted(order) == cells
    for number in range(14, len(order)):
        women = sum(cell[1] == "f" for cell in order[:number])
        assert abs(women / number - 0.5) <= 0.05
