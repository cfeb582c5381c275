"""Full-text search in questions and standing answers: what a person types, as the database wants it.

    grey hair           both words, anywhere
    "grey hair"         these words in a row
    hair -grey          the one without the other

The one surprising fact: words are compared by their stems, so that `wrinkle` finds `wrinkles`, and each database has
its own stemmer: they agree on English words of everyday use, not on all.
"""

import re
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from facellm.errors import DataError

_PARTS = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_WORD = re.compile(r"\w", re.UNICODE)


def matches(session: Session, text: str) -> Any:
    """The condition that a row of `pairs` has these words.

    Raises:
        DataError: there is no word in it that is to be found.
    """
    wanted, unwanted = _phrases(text)
    if not wanted:
        raise DataError(f"The search {text!r} has no word to look for. Write at least one that is not excluded by a -.")
    if session.get_bind().dialect.name == "postgresql":
        return _in_postgresql(wanted, unwanted)
    query = " AND ".join(_quoted(phrase) for phrase in wanted)
    query = f"({query})" + "".join(f" NOT {_quoted(phrase)}" for phrase in unwanted)
    # The + keeps SQLite from walking through all that match where the order's index finds the first ones sooner.
    found = sa.text("+pairs.id IN (SELECT rowid FROM pair_search WHERE pair_search MATCH :words)")
    return found.bindparams(words=query)


def _phrases(text: str) -> tuple[list[str], list[str]]:
    """The phrases that must be there, and those that must not; what has no letter or digit is left out."""
    found: tuple[list[str], list[str]] = ([], [])
    for minus, phrase, word in _PARTS.findall(text):
        if _WORD.search(phrase or word):
            found[bool(minus)].append(phrase or word)
    return found


def _quoted(phrase: str) -> str:
    """As FTS5 takes it for words and never for its own syntax."""
    return '"' + phrase.replace('"', " ") + '"'


def _in_postgresql(wanted: list[str], unwanted: list[str]) -> Any:
    vector: Any = sa.literal_column("pairs.search")
    queries = [sa.func.phraseto_tsquery("english", phrase) for phrase in wanted]
    # Of a stop word such as "the" nothing is left to look for, and nothing is what it would find.
    found = [sa.or_(sa.func.numnode(query) == 0, vector.op("@@")(query)) for query in queries]
    return sa.and_(*found, *(~vector.op("@@")(sa.func.phraseto_tsquery("english", phrase)) for phrase in unwanted))
