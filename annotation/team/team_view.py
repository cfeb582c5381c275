"""What the Team tab shows, as HTML, from the records of `store.team` and `store.audits`.

Its styles are in team.css. The one surprising fact: nobody but a curator is shown how many traps a reviewer was shown:
whoever sees that number grow knows which one it was.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from annotation.fairface import ethnicity
from annotation.models import Action, Status
from annotation.statistics.intervals import Share
from annotation.team.audits import AuditEstimate
from annotation.team.charts import bars, growing, interval, parts, sparkline
from annotation.team.error_estimate import Estimate
from annotation.team.progress import ATTRIBUTE, Progress, Rate
from annotation.team.reviewers import ENOUGH_TRAPS, FAST, ReviewerQuality

MOST_BARS: Final = 60  # days or hours of one chart
MOST_HOURS: Final = 48  # of work that is shown by the hour
SPARK_DAYS: Final = 21
MOST_PAIRS: Final = 12  # fast accepts that are named; --json has all
WORDS: Final = {  # what a status is called beside its number
    Status.ACCEPTED: "accepted",
    Status.EDITED: "edited",
    Status.REJECTED: "rejected",
    Status.FLAGGED: "flagged",
    Status.DISPUTED: "disputed",
    Status.SKIPPED: "skipped",
    Status.PENDING: "pending",
}


def progress_html(progress: Progress, audits: AuditEstimate) -> str:
    """How far it has come, and what is still wrong in it."""
    if not progress.pairs:
        return "<h3>No pairs yet</h3><p>Bring some in with the Dataset tab.</p>"
    closed = progress.pairs - progress.open
    facts = [
        f"<b>{progress.open:,}</b> open",
        *(
            f"<b>{progress.statuses[status]:,}</b> {word}"
            for status, word in WORDS.items()
            if _is_shown(progress, status)
        ),
    ]
    overlapped = f"{_count(progress.overlapped, 'pair')} want two reviewers or more. " if progress.overlapped else ""
    return (
        f"<h3>{closed:,} of {progress.pairs:,} pairs decided</h3>"
        f"{parts({status.value: progress.statuses[status] for status in WORDS})}"
        f"<p>{' · '.join(facts)}</p>"
        f"<p>{overlapped}{_count(progress.wanted, 'verdict')} to go.</p>"
        f"<p><b>Remaining error.</b> {html.escape(audits.sentence)}</p>"
    )


def _is_shown(progress: Progress, status: Status) -> bool:
    return bool(progress.statuses[status]) and status is not Status.PENDING


def accepted_html(progress: Progress) -> str:
    """When pairs were accepted: by the day, or by the hour while it has not been long."""
    hours = progress.accepted_by("hour")
    if not hours:
        return "<h3>Accepted over time</h3><p>Nothing is accepted yet.</p>"
    span = max(progress.accepted) - min(progress.accepted)
    unit = "hour" if span < timedelta(hours=MOST_HOURS) else "day"
    found = hours if unit == "hour" else _every_day(progress.accepted_by("day"))
    shown = dict(list(found.items())[-MOST_BARS:])
    before = sum(found.values()) - sum(shown.values())
    charts = bars(shown, f"per {unit}") + growing(shown, "in all", start=before)
    return f'<h3>Accepted over time</h3><div class="team-charts">{charts}</div>'


def _every_day(days: Mapping[str, int]) -> dict[str, int]:
    """Those without anything, too."""
    first, last = (date.fromisoformat(name) for name in (min(days), max(days)))
    names = ((first + timedelta(days=place)).isoformat() for place in range((last - first).days + 1))
    return {name: days.get(name, 0) for name in names}


def rates_html(progress: Progress) -> str:
    """How often pairs were accepted, by attribute and by group of faces."""
    tables = {name: rates for name, rates in progress.rates.items() if rates}
    if not tables:
        return "<h3>Accept rates</h3><p>Nothing is decided yet.</p>"
    begin = max(0.0, min(rate.share.low for rates in tables.values() for rate in rates) - 0.02)
    said = [_sentence(name, rate) for name, rates in tables.items() for rate in rates if rate.stands_out]
    loud = f"<ul>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in said)}</ul>" if said else ""
    none = "" if said else "<p>No attribute and no group stands out.</p>"
    each = "".join(_rate_table(name, rates, begin) for name, rates in tables.items())
    how = (
        f"Accepted or edited, of all that is decided, with 95 % intervals; the scale begins at {begin:.0%}. Answers "
        "about one face are alike and are not taken for independent. Named is who is rejected 1.5 times as often as "
        "the rest or more, with at most 5 % false alarms."
    )
    return f'<h3>Accept rates</h3>{loud}{none}<div class="team-rates">{each}</div><p>{how}</p>'


def _sentence(name: str, rate: Rate) -> str:
    who = rate.name if name == ATTRIBUTE else f"{name} {ethnicity(rate.name)}"
    ratio = rate.rejections.ratio if rate.rejections else None
    often = f"{ratio:.1f} times as often as the rest" if ratio else "as nothing else is"
    return f"{who}: rejected {often} ({rate.share.of - rate.share.count:,} of {rate.share.of:,})."


def _rate_table(name: str, rates: Sequence[Rate], begin: float) -> str:
    rows = "".join(
        f"<tr{' class=team-loud' if rate.stands_out else ''}><th>{html.escape(ethnicity(rate.name))}</th>"
        f"<td>{rate.share.of:,}</td>"
        f"<td>{rate.share.value:.1%} <small>[{100 * rate.share.low:.1f}, {100 * rate.share.high:.1f}]</small></td>"
        f"<td>{_drawn(rate, begin)}</td></tr>"
        for rate in rates
    )
    head = f"<tr><th>{html.escape(name)}</th><th>decided</th><th>accepted</th><th></th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _drawn(rate: Rate, begin: float) -> str:
    return interval(rate.share.value, rate.share.low, rate.share.high, begin=begin, loud=rate.stands_out)


def reviewers_html(reviewers: Sequence[ReviewerQuality]) -> str:
    """The table for curators, and what should worry them."""
    if not reviewers:
        return "<h3>Reviewers</h3><p>Nobody has decided anything yet.</p>"
    heads = ("decisions", "accepted", "median time", "traps caught", "fast accepts", "differs", "overruled", "by day")
    head = "".join(f"<th>{name}</th>" for name in ("", *heads))
    last = max((day for each in reviewers for day in each.days), default="")
    rows = "".join(
        f"<tr><th>{html.escape(each.name)}</th>"
        + "".join(
            f'<td data-title="{title}">{cell}</td>' for title, cell in zip(heads, _cells(each, last), strict=True)
        )
        + "</tr>"
        for each in reviewers
    )
    worries = "".join(f"<li>{sentence}</li>" for each in reviewers for sentence in _worries(each))
    how = (
        "Traps are pairs that are known to be bad, shown among the others: caught are those that were not accepted. "
        f"Fast are accepts under {FAST} ms. Differs: from another reviewer's verdict about the same pair. Overruled: "
        "settled otherwise by a curator. Brackets hold 95 % intervals."
    )
    table = f'<div class="team-table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<h3>Reviewers</h3>{table}{f'<ul>{worries}</ul>' if worries else ''}<p>{how}</p>"


def _cells(each: ReviewerQuality, last: str) -> Iterable[str]:
    kinds = ", ".join(f"{each.actions[action]:,} {_DONE[action]}" for action in _DONE if each.actions.get(action))
    yield f'<span title="{kinds}">{each.decisions:,}</span>'
    yield _share(each.accept_rate, 0)
    yield "–" if each.seconds is None else _quartiles(each.seconds)
    yield _share(each.caught, 0, counts=True)
    yield _share(each.fast, 1)
    yield _share(each.differs, 0)
    yield _share(each.overruled, 0, counts=True)
    yield sparkline([each.days.get(day, 0) for day in _days_until(last)])


_DONE: Final = {
    Action.ACCEPT: "accepted",
    Action.EDIT: "edited",
    Action.REJECT: "rejected",
    Action.SKIP: "skipped",
    Action.FLAG: "flagged",
}


def _days_until(last: str) -> Iterable[str]:
    if last:
        end = date.fromisoformat(last)
        yield from ((end - timedelta(days=back)).isoformat() for back in range(SPARK_DAYS - 1, -1, -1))


def _quartiles(seconds: tuple[float, float, float]) -> str:
    low, median, high = seconds
    return f"{median:.1f} s <small>[{low:.1f}, {high:.1f}]</small>"


def _share(share: Share | None, digits: int, *, counts: bool = False) -> str:
    if share is None:
        return "–"
    ends = f"<small>[{100 * share.low:.{digits}f}, {100 * share.high:.{digits}f}]</small>"
    if counts:
        return f"{share.count:,} of {share.of:,} {ends}"
    return f'<span title="{share.count:,} of {share.of:,}">{share.value:.{digits}%}</span> {ends}'


def _worries(each: ReviewerQuality) -> Iterable[str]:
    """Sentences about what a curator should look at."""
    name = f"<b>{html.escape(each.name)}</b>"
    if each.fast and each.fast.low > 0.02 and each.fast_pairs:
        first = ", ".join(map(str, each.fast_pairs[:MOST_PAIRS]))
        more = f" and {len(each.fast_pairs) - MOST_PAIRS:,} more" if len(each.fast_pairs) > MOST_PAIRS else ""
        yield f"{name} has accepted {_count(len(each.fast_pairs), 'pair')} in under {FAST} ms: {first}{more}."
    if each.caught and each.caught.of >= ENOUGH_TRAPS and each.caught.high < 0.8:
        yield f"{name} has accepted {each.caught.of - each.caught.count:,} of {each.caught.of:,} known-bad pairs."


def audit_html(audits: AuditEstimate, filtered: Sequence[AuditEstimate] = ()) -> str:
    """What the audits say, by attribute too; below it, those that were drawn with a filter."""
    rows = "".join(_audit_row(name, found) for name, found in audits.attributes.items())
    how = (
        "Weighed by attribute, Wilson's interval."
        if audits.is_by_attribute
        else "The interval is exact (Clopper and Pearson's, for drawing without putting back)."
    )
    head = "<tr><th>attribute</th><th>wrong</th><th>share</th></tr>"
    table = f'<div class="team-table"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>' if rows else ""
    parts = "".join(f"<p><b>{html.escape(each.population)}</b>: {html.escape(each.sentence)}</p>" for each in filtered)
    return f"<h3>Audit</h3><p>{html.escape(audits.sentence)} {how if rows else ''}</p>{table}{parts}"


def _audit_row(name: str, found: Estimate) -> str:
    return (
        f"<tr><th>{html.escape(name)}</th><td>{found.wrong:,} of {found.judged:,}</td><td>{found.share:.1%} "
        f"<small>[{100 * found.low:.1f}, {100 * found.high:.1f}]</small></td></tr>"
    )


def audited_pair_html(picture: str, question: str, answer: str, labels: Mapping[str, str], left: int) -> str:
    """One drawn pair to be judged; `picture` is a data URL, empty where the file is missing."""
    chips = "".join(
        f"<li><span>{html.escape(name.replace('_', ' '))}</span> {html.escape(ethnicity(value))}</li>"
        for name, value in labels.items()
    )
    image = f'<img src="{picture}" alt="The face">' if picture else "<p>The image is missing.</p>"
    return (
        f'<div class="team-audited">{image}<div><p class="team-question">{html.escape(question)}</p>'
        f"<blockquote>{html.escape(answer)}</blockquote><ul>{chips}</ul>"
        f"<p>{_count(left, 'pair')} to judge.</p></div></div>"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
