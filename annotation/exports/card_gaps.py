"""What a set of pairs lacks: the last section of its data card.

The one surprising fact: a group is called rare when it has less than half of what it would have if all values of its
label were equally frequent; so one of two genders is rare below a quarter.
"""

from collections.abc import Iterator

from annotation.exports.card_tables import in_order, percent
from annotation.exports.facts import Facts
from annotation.exports.tally import Tally
from annotation.fairface import VALUES
from annotation.models import GROUPS, Status
from facellm.data import Attribute


def gaps(tally: Tally, facts: Facts | None) -> Iterator[str]:
    """A sentence each."""
    missing = [attribute.value for attribute in Attribute if not tally.attributes[attribute.value]]
    if missing:
        yield f"No pair is about {', '.join(missing)}."
    if tally.is_grouped:
        for name in GROUPS:
            yield from _group_gaps(tally, name)
    else:
        yield "Race, gender and age of no picture are known, so nothing can be said about groups of people."
    if facts is None:
        yield "Who has reviewed, what was rejected and where the pictures came from was not recorded."
    else:
        yield from _review_gaps(tally, facts)
    yield "The answers are in English only."


def _group_gaps(tally: Tally, name: str) -> Iterator[str]:
    found = {value: count for (value,), count in tally.by(name).items() if value}
    known = sum(found.values())
    if known < tally.image_count:
        yield f"The {name} of {tally.image_count - known:,} of {tally.image_count:,} pictures is unknown."
    if not found:
        return
    if absent := [value for value in VALUES[name] if value not in found]:
        yield f"By {name}, there is no picture of {', '.join(absent)}."
    fair = known / len(VALUES[name])
    rare = [value for value in in_order(name, found) if found[value] < fair / 2]
    if rare:
        shown = ", ".join(f"{value} ({percent(found[value], known)})" for value in rare)
        yield f"By {name}, few pictures are of {shown}."


def _review_gaps(tally: Tally, facts: Facts) -> Iterator[str]:
    statuses = [status for of in facts.statuses.values() for status in of.items()]
    drafts = sum(count for _, count in statuses)
    waiting = sum(count for status, count in statuses if status in (Status.PENDING, Status.SKIPPED))
    unsettled = sum(count for status, count in statuses if status in (Status.FLAGGED, Status.DISPUTED))
    if waiting:
        yield f"{percent(waiting, drafts)} of the drafts ({waiting:,} of {drafts:,}) had not been reviewed."
    if unsettled:
        yield f"{unsettled:,} drafts were flagged or disputed, and no curator had settled them."
    curated = tally.statuses[Status.ACCEPTED] + tally.statuses[Status.EDITED]
    if curated < tally.pair_count:
        yield f"{tally.pair_count - curated:,} pairs are neither accepted nor edited."
    if facts.seen_twice < tally.pair_count:
        once = tally.pair_count - facts.seen_twice
        yield f"{percent(once, tally.pair_count)} of the pairs were decided by one reviewer only."
    if facts.agreement is None:
        yield "No pair was judged by two reviewers on their own, so how far they agree is unknown."
