"""What models cost: prices.json, in US dollars per million tokens.

    price_of("gpt-4o-2024-11-20").cost(651, 0, 250)     0.0041275

The one surprising fact: these figures are not read from OpenAI. Every row of prices.json says when the price was read
and by whom; what a provider bills is what counts. A model that is not in the file has no price rather than a guess.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facellm.errors import DataError

PRICES_FILE: Final = Path(__file__).with_name("prices.json")
_SNAPSHOT: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Price:
    """What a model costs, in USD per million tokens."""

    input: float
    cached_input: float  # of input tokens that the provider had in its cache
    output: float  # reasoning is billed as output, too
    batch_factor: float  # of all three in the Batch API; 1 where there is no discount

    def cost(self, input_tokens: float, cached_tokens: float, output_tokens: float, *, batch: bool = False) -> float:
        """The price of so many tokens in USD.

        Args:
            input_tokens: all of them, as a usage record counts them: cached ones too.
            cached_tokens: how many of the input tokens were cached.
            output_tokens: reasoning included.
            batch: whether they were sent by the Batch API.
        """
        dollars = (
            (input_tokens - cached_tokens) * self.input
            + cached_tokens * self.cached_input
            + output_tokens * self.output
        ) / _MILLION
        return dollars * self.batch_factor if batch else dollars


class PriceRow(BaseModel):
    """One model of prices.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)
    batch_factor: float = Field(gt=0, le=1)
    date: date  # on which somebody read it from the provider
    source: str = Field(min_length=1)  # who did, and where it is written


class _PriceFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    models: dict[str, PriceRow] = Field(min_length=1)


@cache
def read_prices(path: Path = PRICES_FILE) -> Mapping[str, PriceRow]:
    """All rows of a price file by model name.

    Raises:
        DataError: the file is not as it should be; the message names the place.
    """
    try:
        return _PriceFile.model_validate_json(path.read_text(encoding="utf-8")).models
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}. Install FaceLLM Studio again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path.name}: {where}: {first['msg']}. Expected input, cached_input and output in USD per million tokens, "
            "batch_factor, date and source for every model; correct it."
        ) from error


def price_of(model: str) -> Price | None:
    """The price of a model at OpenAI; a dated snapshot without a row of its own costs what its family costs.

    Args:
        model: its name there. The same name at another server says nothing about the price there: do not ask then.

    Returns:
        None where the price is not known.
    """
    rows = read_prices()
    row = rows.get(model) or rows.get(_SNAPSHOT.sub("", model))
    return None if row is None else Price(row.input, row.cached_input, row.output, row.batch_factor)


def prices_date() -> date:
    """The day of the oldest price: all of them were read then or later."""
    return min(row.date for row in read_prices().values())
