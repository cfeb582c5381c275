"""Labels as they come from a file: which are FairFace's, and why the others are not.

The one surprising fact: spreadsheet programs take two of the nine ages for dates. A CSV that was opened and saved in
one has `9-Mar` where it had 3-9, and `19-Oct` where it had 10-19.
"""

import re
from collections.abc import Mapping
from typing import Final

from annotation.fairface import VALUES
from facellm.errors import DataError

SERVICE_TEST: Final = "service_test"
NAMES: Final = (*VALUES, SERVICE_TEST)
_MONTHS: Final = {"mar": 3, "mär": 3, "sep": 9, "set": 9, "oct": 10, "okt": 10, "out": 10, "ott": 10}
_DATED: Final = {"3-9": {3, 9}, "10-19": {10, 19}}


def check_labels(given: Mapping[str, str]) -> dict[str, str]:
    """The labels that are known, by name; empty ones are left out.

    Args:
        given: name → text, of the names in `NAMES`; service_test is true or false in any spelling of the case.

    Raises:
        DataError: a text is none of the values that its label can have.
    """
    labels = {name: text for name in NAMES if (text := given.get(name, "").strip())}
    for name, values in VALUES.items():
        if name in labels and labels[name] not in values:
            raise DataError(_outside(name, labels[name], values))
    if SERVICE_TEST in labels:
        labels[SERVICE_TEST] = labels[SERVICE_TEST].capitalize()  # spreadsheet programs write TRUE
        if labels[SERVICE_TEST] not in ("True", "False"):
            raise DataError(_outside(SERVICE_TEST, given[SERVICE_TEST].strip(), ("True", "False")))
    return labels


def _outside(name: str, text: str, values: tuple[str, ...]) -> str:
    age = _dated_age(text) if name == "age" else None
    if age:
        return (
            f"age is '{text}': a spreadsheet program has probably turned {age} into a date. "
            "Import the file as it was published, or write the ages as text"
        )
    shown = text if len(text) <= 40 else text[:40] + "…"
    return f"{name} is '{shown}', expected one of: {', '.join(values)}"


def _dated_age(text: str) -> str | None:
    """The age that has probably become this date, such as 3-9 for `9-Mar` or `2026-03-09`; None where it is no date."""
    numbers = [int(digits) for digits in re.findall(r"\d{1,4}", text)]
    months = [number for word, number in _MONTHS.items() if re.search(rf"\b{word}", text.lower())]
    if len(numbers) + len(months) > 3 or not (months or len(numbers) == 3):
        return None
    parts = {number % 100 for number in [*numbers, *months]}
    return next((age for age, wanted in _DATED.items() if wanted <= parts), None)
