"""Writes that share a transaction share no misfortune."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from annotation.models import Acknowledgement
from annotation.store import Store
from annotation.teaching.writer import Writer


def remember(subject: str | None) -> Any:
    def write(session: Session) -> str | None:
        session.add(Acknowledgement(subject=subject, who="ana"))
        session.flush()
        return subject

    return write


def test_one_that_cannot_be_written_spoils_no_other(data_dir: Path) -> None:
    store = Store.open(data_dir)

    async def together() -> list[Any]:
        async with Writer(store.ledger) as write:
            waiting = [write(remember(subject)) for subject in ("a", "b", None, "c", "a")]
            return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(together())
    assert [found[0], found[1], found[3]] == ["a", "b", "c"]
    assert isinstance(found[2], Exception)
    assert isinstance(found[4], Exception)
    assert all(store.ledger.acknowledged(subject) for subject in "abc")
    store.close()


def test_what_fails_alone_is_raised_where_it_was_asked_for(data_dir: Path) -> None:
    store = Store.open(data_dir)

    async def alone() -> None:
        async with Writer(store.ledger) as write:
            await write(remember(None))

    with pytest.raises(Exception, match="NOT NULL"):
        asyncio.run(alone())
    store.close()
