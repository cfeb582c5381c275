"""Filters of pairs: what a person may write, and what it selects.

python -m pytest tests/test_pair_filter.py
"""

import pytest

from annotation.models import Status
from annotation.pair_filter import PairFilter
from facellm.data import Attribute
from facellm.errors import DataError


def test_a_filter_is_read_from_words() -> None:
    found = PairFilter.parse('attribute=skin race=Black status=edited,accepted text="grey hair" run=3')
    assert found == PairFilter(
        attribute=Attribute.SKIN, race="Black", status=(Status.ACCEPTED, Status.EDITED), text="grey hair", run=3
    )
    assert PairFilter.parse("") == PairFilter()


def test_the_same_filter_is_the_same_text() -> None:
    assert PairFilter.parse("status=edited,accepted race=Black").to_json() == (
        PairFilter.parse("race=Black status=accepted,edited").to_json()
    )
    assert PairFilter().to_json() == "{}"
    assert PairFilter.parse("age=20-29").to_json() == '{"age": "20-29"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour=red", "A filter has no colour; the names are attribute, race"),
        ("skin", "The filter has 'skin'. Expected NAME=VALUE"),
        ("attribute=nose", "The filter's attribute is 'nose': expected one of demographic, structure"),
        ("status=accepted,done", "The filter's status is 'done': expected one of pending, accepted"),
        ("run=first", "The filter's run is 'first'"),
        ('text="open', "a quotation mark is not closed"),
    ],
)
def test_a_filter_that_cannot_be_is_explained(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        PairFilter.parse(text)
