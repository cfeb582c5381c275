"""Which pairs are meant: one record for the desk, its links, snapshots, exports and commands.

    PairFilter.parse('attribute=skin race=Black status=accepted,edited text="grey hair"')
    PairFilter(attribute=Attribute.SKIN).conditions(session)

The one surprising fact: the JSON of a filter leaves out what is not set and is sorted, so that the same filter is the
same text in every snapshot, and a field that a later version adds changes none of them.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from sqlmodel import Session, col, select

from annotation.models import FREE_QUESTION, GROUPS, Flag, Pair, Status, Verdict
from annotation.search import matches
from facellm.data import Attribute
from facellm.errors import DataError

ANY, NONE = "any", "none"  # in the place of a check: with some flag, without one


class PairFilter(BaseModel):
    """What pairs must be; a field that is None, or empty, says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: Attribute | Literal["free question"] | None = None
    race: str | None = Field(default=None, min_length=1, max_length=100)
    gender: str | None = Field(default=None, min_length=1, max_length=100)
    age: str | None = Field(default=None, min_length=1, max_length=100)
    status: tuple[Status, ...] = ()  # one of these
    flag: str | None = Field(default=None, min_length=1, max_length=100)  # of this check; or ANY, or NONE
    reviewer: str | None = Field(default=None, min_length=1, max_length=100)  # a decision of his stands
    run: int | None = Field(default=None, ge=1, lt=2**31)  # the generation run that wrote it
    teacher: str | None = Field(default=None, min_length=1, max_length=500)
    text: str | None = Field(default=None, min_length=1, max_length=500)  # words of question or standing answer

    @field_validator("status", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """A string names several with commas between them; the order in which they are named does not matter."""
        named = value.split(",") if isinstance(value, str) else value
        return sorted(set(named), key=str) if isinstance(named, list | tuple) else named

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a person typed: NAME=VALUE with spaces between, quotes around a value that has spaces.

        Raises:
            DataError: it is not of that form, there is no such field, or it has no such value.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise DataError(f"The filter {text!r} cannot be read: a quotation mark is not closed.") from error
        if wrong := [word for word in words if "=" not in word]:
            raise DataError(f"The filter has {wrong[0]!r}. Expected NAME=VALUE, such as attribute=skin; {_possible()}.")
        return cls.read(dict(word.partition("=")[::2] for word in words))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From the parameters of a link or a desk; what is empty is not set.

        Raises:
            DataError: there is no such field, or it has no such value.
        """
        try:
            return cls.model_validate({name: value for name, value in values.items() if value not in (None, "")})
        except ValidationError as error:
            raise DataError(_complaint(error)) from error

    def to_json(self) -> str:
        """Canonical: sorted, without what is not set."""
        return json.dumps(self.set_fields(), sort_keys=True, ensure_ascii=False)

    def set_fields(self) -> dict[str, Any]:
        """What is set, as JSON values."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value not in (None, [])}

    def conditions(self, session: Session) -> list[Any]:
        """The conditions on rows of `pairs`, all of which must hold.

        Lists of ids are compared with `id + 0`: so SQLite walks through an index that has all the filters, instead of
        fetching the row of each id, texts and all.

        Raises:
            DataError: the text has no word to look for.
        """
        found: list[Any] = []
        if self.attribute is not None:
            found.append(col(Pair.attribute) == (None if self.attribute == FREE_QUESTION else self.attribute))
        for name in (*GROUPS, "teacher"):
            if (value := getattr(self, name)) is not None:
                found.append(getattr(Pair, name) == value)
        if self.status:
            found.append(col(Pair.status).in_(self.status))
        if self.run is not None:
            found.append(col(Pair.run_id) == self.run)
        if self.reviewer is not None:
            decided = select(Verdict.pair_id).where(Verdict.reviewer == self.reviewer)
            found.append((col(Pair.id) + 0).in_(decided))
        if self.text is not None:
            found.append(matches(session, self.text))
        return found + self._about_flags()

    def _about_flags(self) -> list[Any]:
        if self.flag is None:
            return []
        if self.flag in (ANY, NONE):
            return [col(Pair.suspicion) > 0 if self.flag == ANY else col(Pair.suspicion) == 0]
        return [(col(Pair.id) + 0).in_(select(Flag.pair_id).where(Flag.check == self.flag))]


NO_FILTER: Final = PairFilter()
PENDING: Final = PairFilter(status=(Status.PENDING,))


def _possible() -> str:
    return f"the names are {', '.join(PairFilter.model_fields)}"


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"A filter has no {name}; {_possible()}."
    values: dict[str, list[str]] = {
        "attribute": [*(attribute.value for attribute in Attribute), FREE_QUESTION],
        "status": [status.value for status in Status],
    }
    expected = f"expected one of {', '.join(values[name])}" if name in values else first["msg"]
    return f"The filter's {name} is {first['input']!r}: {expected}."
