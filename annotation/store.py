"""The one door to the data: every query and every change of state of images, pairs, decisions and votes.

    store = Store.of(settings)

A decision is an event that is only ever added; in the same transaction the pair's status is set to what its events
add up to. It is refused with a `StaleError` when the pair has changed since the reviewer saw it, and storing the same
UUID twice stores it once. A store may be used from several threads, and a data directory by several processes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic.util.exc import CommandError
from PIL import Image as Pictures
from sqlalchemy import URL, Engine
from sqlalchemy.exc import DatabaseError
from sqlmodel import Session, col, func, select

from annotation import leases
from annotation.accounts.accounts import Accounts
from annotation.agreement.ratings import Ratings, read_ratings
from annotation.checks.findings import Finding
from annotation.checks.flags import (
    Checkable,
    check_again,
    checkable,
    checkable_after,
    count_flagged,
    count_flags,
    flags_of,
    replace_flags,
    suspicion,
    texts_of,
)
from annotation.checks.quality import PAIR_CHECKS
from annotation.database import connect, migrate, reading, writing
from annotation.decisions import append_decision, events_of, labels_of, still_stands, verdicts_of
from annotation.exchanges import Exchange, insert_exchange, put_exchange
from annotation.exports.snapshots import curated_outlines, snapshot_named, take_snapshot
from annotation.facets import read_facets
from annotation.images import put_image
from annotation.ingest import Ingested, insert_and_tell, insert_images
from annotation.models import (
    CURATED,
    Decision,
    DecisionInput,
    Flag,
    Image,
    ImageInput,
    Label,
    Pair,
    Snapshot,
    Status,
    Verdict,
)
from annotation.pair_filter import NO_FILTER, PENDING, PairFilter
from annotation.postgresql import connect_postgresql, described, explain
from annotation.project import ProjectStore
from annotation.review_queue import Order, browse, count_pairs, is_prepared, prepare
from annotation.statistics.generation_stats import (
    Costs,
    TaskCounts,
    read_costs,
    read_flagged,
    read_flags,
    read_task_counts,
)
from annotation.statistics.group_stats import GroupStats, read_group_stats
from annotation.teaching.ledger import Ledger
from annotation.team.audits import AuditStore
from annotation.team.team_numbers import TeamNumbers
from annotation.team.traps import TrapStore, append_answer, is_trap
from annotation.votes import count_votes, insert_vote, read_votes
from facellm.config import Settings
from facellm.data import Attribute, Example
from facellm.errors import ConfigError, DataError, StaleError
from facellm.votes import Vote

DATABASE = "studio.db"


@dataclass(frozen=True)
class PairView:
    """A pair with its image, labels and flags, and what stands of every reviewer."""

    pair: Pair
    image: Image
    labels: dict[str, str]
    verdicts: tuple[Verdict, ...]  # oldest first; skips and flags too
    flags: tuple[Flag, ...]  # the most severe first

    @property
    def answer(self) -> str:
        """The text to show: the edited one where an edit stands, else the draft."""
        return self.pair.stands

    @property
    def decision(self) -> Verdict | None:
        """The newest decision that stands: a curator's last word where there is one."""
        settled = [verdict for verdict in self.verdicts if verdict.settles]
        return next(reversed(settled or self.verdicts), None)

    @property
    def suspicion(self) -> int:
        """By what the queue puts the most suspicious pairs first; 0 without a flag."""
        return suspicion(flag.severity for flag in self.flags)


class Store:
    """Images, pairs, decisions, snapshots and votes below one data directory."""

    def __init__(self, engine: Engine, data_dir: Path) -> None:
        """Use `Store.open`, which also migrates."""
        self._engine = engine
        self.data_dir = data_dir
        self.ledger = Ledger(engine)  # what teachers were asked, and what it cost
        self.accounts = Accounts(engine)  # who may sign in, and what they may do
        self.project = ProjectStore(engine)  # guidelines, overlap
        self.traps = TrapStore(engine, PairView)  # known-bad pairs among the others
        self.audits = AuditStore(engine)  # a random sample of what was curated, looked at once more
        self.team = TeamNumbers(engine)  # how far it has come, and how well its reviewers work

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """Open the store that the settings name; see `open`."""
        return cls.open(settings.data_dir, settings.database)

    @classmethod
    def open(cls, data_dir: Path, database: str = "") -> "Store":
        """Open the database at the newest schema; it and the data directory are created where there is none.

        Args:
            data_dir: where pictures and snapshots are.
            database: the URL of a PostgreSQL database; empty for the SQLite file below the data directory.

        Raises:
            ConfigError: the data directory cannot be used, or the URL is none.
            DataError: the database cannot be used, or is not one of this program.
        """
        with _explained(data_dir):
            data_dir.mkdir(parents=True, exist_ok=True)
        engine = connect_postgresql(database) if database else connect(data_dir / DATABASE)
        try:
            with _explained(data_dir, engine.url):
                migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, data_dir)

    def close(self) -> None:
        """Close the connections; the store cannot be used afterwards."""
        self._engine.dispose()

    # Images and pairs coming in

    def put_image(self, data: bytes, suffix: str) -> tuple[str, str]:
        """Store an image file under its content: (SHA-256, path relative to the data directory).

        Args:
            data: the file's bytes.
            suffix: of its name, such as ".png".
        """
        return put_image(self.data_dir, data, suffix)

    def ingest(self, images: Sequence[ImageInput], *, check: bool = False) -> int:
        """Add images with their labels and pairs in one transaction; return how many pairs were new.

        What is there already stays as it is, so the same call twice adds nothing the second time.

        Args:
            images: with their labels and pairs.
            check: flag the new pairs in the same transaction, by the checks that need no other answers.
        """
        with writing(self._engine) as session:
            last = session.exec(select(func.max(Pair.id))).one() or 0
            added = insert_images(session, images)
            if check:
                ids = session.exec(select(Pair.id).where(col(Pair.id) > last)).all()
                check_again(session, [pair_id for pair_id in ids if pair_id is not None])
            return added

    def add_exchange(
        self,
        images: Sequence[Pictures.Image | bytes],
        question: str,
        answer: str,
        *,
        attribute: Attribute | None,
        teacher: str,
        teacher_source: str,
        parameters: str,
    ) -> int:
        """Store a chat exchange as a pending pair; return its id. The same exchange again returns the same pair.

        Args:
            images: its one picture: upright RGB, or an image file's bytes. Only its pixels are stored.
            question: the last one.
            answer: to that question.
            attribute: what the question is about; None for a free question.
            teacher: the name of the model that answered.
            teacher_source: what identifies its weights.
            parameters: a JSON object: sampling, and the turns before the question if there were any.

        Raises:
            DataError: no or several pictures, no question, no answer, or parameters that are no JSON object.
            ImageError: the picture cannot be opened.
        """
        exchange = Exchange(images, question, answer, attribute, teacher, teacher_source, parameters)
        image = put_exchange(self.data_dir, exchange)
        with writing(self._engine) as session:
            return insert_exchange(session, image)

    def ingest_and_tell(self, images: Sequence[ImageInput]) -> Ingested:
        """As `ingest`, but tell all that was new, and which labels contradict stored ones of the same source."""
        with writing(self._engine) as session:
            return insert_and_tell(session, images)

    def images(self, sha256s: Collection[str]) -> dict[str, Image]:
        """The images of these SHA-256 hashes, at most some thousands, by their hash; unknown ones are left out."""
        with reading(self._engine) as session:
            found = session.exec(select(Image).where(col(Image.sha256).in_(sha256s)))
            return {image.sha256: image for image in found}

    def sources(self) -> set[str]:
        """Where the images came from, one entry for each image."""
        with reading(self._engine) as session:
            return set(session.exec(select(Image.source)).all())

    def is_empty(self) -> bool:
        """Whether there is no image yet."""
        with reading(self._engine) as session:
            return session.exec(select(Image.id).limit(1)).first() is None

    # Reviewing

    def browse(
        self,
        which: PairFilter = PENDING,
        order: Order = Order.IMAGE,
        *,
        exclude: Collection[int] = (),
        limit: int = 20,
    ) -> list[PairView]:
        """The next pairs of a filter to look at, by default the pending ones; nobody is kept from taking them.

        Args:
            which: only such pairs.
            order: which come first.
            exclude: ids that the caller has already.
            limit: at most so many.

        Raises:
            DataError: the filter's text has no word to look for.
        """
        self._prepare(order)
        with reading(self._engine) as session:
            return _views(session, browse(session, which, order, exclude=exclude, limit=limit))

    def _prepare(self, order: Order) -> None:
        with reading(self._engine) as session:
            if is_prepared(session, order):
                return
        with writing(self._engine) as session:
            prepare(session, order)

    def facets(self, which: PairFilter = NO_FILTER) -> dict[str, dict[str, int]]:
        """What can be chosen for each field of a filter: field → value → how many pairs that would give.

        Raises:
            DataError: the filter's text has no word to look for.
        """
        with reading(self._engine) as session:
            return read_facets(session, which)

    def pairs(self, ids: Iterable[int]) -> list[PairView]:
        """The pairs of these ids, in the order of their ids, traps too; unknown ids are left out."""
        ids = list(ids)
        traps = [pair_id for pair_id in ids if is_trap(pair_id)]
        with reading(self._engine) as session:
            query = select(Pair).where(col(Pair.id).in_(ids)).order_by(col(Pair.id))
            views = _views(session, session.exec(query).all())
        return [*views, *self.traps.views(traps)] if traps else views

    def claim(
        self,
        reviewer: str,
        holder: str,
        which: PairFilter = NO_FILTER,
        order: Order = Order.IMAGE,
        *,
        exclude: Collection[int] = (),
        limit: int = 20,
    ) -> list[PairView]:
        """Lease the next open pairs to a window of a reviewer, so that nobody else is given them; see `leases`.

        Args:
            reviewer: who will decide them.
            holder: his window.
            which: only such pairs; its status is not looked at, since only open pairs are leased.
            order: which come first.
            exclude: ids that the window has already.
            limit: at most so many.

        Raises:
            DataError: the filter's text has no word to look for.
        """
        with writing(self._engine) as session:
            prepare(session, order)
            conditions = which.model_copy(update={"status": ()}).conditions(session)
            ids = leases.claim(session, reviewer, holder, conditions, order.columns, exclude=exclude, limit=limit)
            query = select(Pair).where(col(Pair.id).in_(ids)).order_by(*order.columns)
            return _views(session, session.exec(query).all())

    def renew(self, reviewer: str, holder: str, ids: Collection[int]) -> set[int]:
        """Keep the leases of these pairs for their full time again; return those that the window holds.

        A pair without a lease, as after an undo, is leased if it is open and nobody else has it.
        """
        with writing(self._engine) as session:
            held = leases.renew(session, reviewer, holder, ids)
        return held | self.traps.held(reviewer, ids)

    def release(self, reviewer: str, holder: str | None = None, ids: Collection[int] | None = None) -> None:
        """Give leases back: those of these ids, or all; of one window, or of the person."""
        with writing(self._engine) as session:
            leases.release(session, reviewer, holder, ids)

    def leave(self, reviewer: str, holder: str) -> None:
        """Have a window's leases end in 20 seconds, unless it comes back for them: it is closed or loaded anew."""
        with writing(self._engine) as session:
            leases.leave(session, reviewer, holder)

    def decide(self, reviewer: str, decision: DecisionInput, *, may_settle: bool = False) -> Decision:
        """Store a decision and set the pair's status; the same UUID again changes nothing and returns what is stored.

        Args:
            reviewer: whose decision it is.
            decision: about the pair as his page has shown it.
            may_settle: whether his is the last word about what others have closed, flagged or disagree about.

        Raises:
            StaleError: the pair has changed since the reviewer saw it, or what is to be undone no longer stands.
            DataError: the pair does not exist, or is another one than the reviewer saw.
        """
        with writing(self._engine) as session:
            return _decide(session, reviewer, decision, may_settle=may_settle)

    def decide_lot(
        self, reviewer: str, decisions: Sequence[DecisionInput], *, may_settle: bool = False
    ) -> list[Decision]:
        """Store several decisions, all or none; see `decide`."""
        with writing(self._engine) as session:
            return [_decide(session, reviewer, decision, may_settle=may_settle) for decision in decisions]

    def own_revisions(self, reviewer: str, ids: Collection[int]) -> dict[int, int]:
        """How many decisions of a reviewer each of these pairs has had; those without any are left out."""
        query = select(Decision.pair_id, func.count()).where(
            Decision.reviewer == reviewer, col(Decision.pair_id).in_(ids)
        )
        with reading(self._engine) as session:
            own = dict(session.exec(query.group_by(col(Decision.pair_id))).all())
        return own | self.traps.own_revisions(reviewer, ids) if any(map(is_trap, ids)) else own

    def history(self, reviewer: str, *, limit: int = 200) -> list[Decision]:
        """The reviewer's decisions that can still be undone, newest first, at most `limit` of them."""
        query = select(Decision).where(Decision.reviewer == reviewer, still_stands())
        with reading(self._engine) as session:
            found = list(session.exec(query.order_by(col(Decision.id).desc()).limit(limit)).all())
        found += self.traps.history(reviewer, limit)
        return sorted(found, key=lambda decision: decision.created_at, reverse=True)[:limit]

    def events(self, pair_id: int) -> list[Decision]:
        """All that was ever decided about a pair, oldest first."""
        with reading(self._engine) as session:
            return events_of(session, [pair_id])[pair_id]

    # Checking

    def checkable(self, *, ids: Collection[int] | None = None, after: int = 0, limit: int = 500) -> list[Checkable]:
        """Pairs as the automatic checks see them: those of these ids, or the next ones after an id."""
        with reading(self._engine) as session:
            return checkable_after(session, after, limit) if ids is None else checkable(session, ids)

    def standing_texts(self, attribute: Attribute | None) -> tuple[list[int], list[str]]:
        """All ids of an attribute's pairs (None: free questions) in ascending order, and the texts that stand."""
        with reading(self._engine) as session:
            return texts_of(session, attribute)

    def replace_flags(
        self, checks: Collection[str], found: Mapping[int, Sequence[Finding]], revisions: Mapping[int, int]
    ) -> set[int]:
        """Make these checks' flags of these pairs be these findings, in one transaction.

        Args:
            checks: flags of other checks stay as they are.
            found: pair id → findings; a pair without any loses its flags.
            revisions: pair id → the revision that was checked.

        Returns:
            The pairs that were decided about meanwhile: they are left as they are.
        """
        with writing(self._engine) as session:
            return replace_flags(session, checks, found, revisions)

    # Counting

    def counts(self, *, flagged: bool = False) -> dict[Attribute | None, dict[Status, int]]:
        """How many pairs (or how many with a flag) there are, by attribute (None: free questions) and status."""
        with reading(self._engine) as session:
            return count_pairs(session, flagged=flagged)

    def accepted_counts(self) -> dict[Attribute | None, int]:
        """How many pairs a snapshot would take, by attribute (None: free questions)."""
        return {attribute: sum(of[status] for status in CURATED) for attribute, of in self.counts().items()}

    def accepted_outlines(self) -> Iterator[Example]:
        """Images, question and answer of each pair that a snapshot would hold now, one after another.

        Examples without attribute and provenance, in no order: what an estimate needs, without taking a snapshot.
        """
        return curated_outlines(self._engine, self.data_dir)

    def label_values(self, name: str) -> set[str]:
        """The values that a label has, such as the ages that there are."""
        with reading(self._engine) as session:
            return set(session.exec(select(Label.value).where(Label.name == name).distinct()).all())

    def image_count(self) -> int:
        """How many images there are."""
        with reading(self._engine) as session:
            return session.exec(select(func.count()).select_from(Image)).one()

    def flag_counts(self) -> dict[str, int]:
        """How many pairs each check has flagged."""
        with reading(self._engine) as session:
            return count_flags(session)

    def flagged_count(self) -> int:
        """How many pairs have a flag."""
        with reading(self._engine) as session:
            return count_flagged(session)

    def flags_by_attribute(self) -> dict[str, dict[str, int]]:
        """How many pairs each check has flagged, by attribute; what has none is left out."""
        with reading(self._engine) as session:
            return read_flags(session)

    def flagged_by_attribute(self) -> dict[str, int]:
        """How many pairs have a flag, by attribute; what has none is left out."""
        with reading(self._engine) as session:
            return read_flagged(session)

    def task_counts(self) -> TaskCounts:
        """What has come of all that teachers were asked, by attribute and by teacher."""
        with reading(self._engine) as session:
            return read_task_counts(session)

    def costs(self) -> Costs:
        """What the teachers' answers have cost, by teacher, by model, by attribute and by purpose."""
        with reading(self._engine) as session:
            return read_costs(session)

    def group_stats(self) -> GroupStats:
        """Images, answers, refusals and flags by group of faces, and the groups that stand out."""
        with reading(self._engine) as session:
            return read_group_stats(session)

    def reviewer_counts(self) -> dict[str, int]:
        """How many events each reviewer has made, undone ones and undoes too."""
        query = select(Decision.reviewer, func.count()).group_by(Decision.reviewer)
        with reading(self._engine) as session:
            return dict(sorted(session.exec(query).all()))  # here, since each database has its own order of texts

    def ratings(self) -> Ratings:
        """The verdicts about all pairs that have those of at least two reviewers, for `measure_agreement`."""
        with reading(self._engine) as session:
            return read_ratings(session)

    # Snapshots

    def snapshot(self, name: str, pairs: PairFilter | None = None) -> Snapshot:
        """Freeze pairs under a name, as `snapshots/NAME/examples.jsonl`.

        The same state of the same pairs has the same hash, whatever the name.

        Args:
            name: of the snapshot and its folder.
            pairs: which ones; where it names no status, and unless given, those that are accepted or edited.

        Raises:
            DataError: the name is taken or cannot be a folder's name, there is no such pair, or the disk is full.
        """
        return take_snapshot(self._engine, self.data_dir, name, pairs)

    def find_snapshot(self, name: str) -> Snapshot:
        """The snapshot of this name.

        Raises:
            DataError: there is none; the message names those that there are.
        """
        return snapshot_named(self._engine, name)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, newest first."""
        with reading(self._engine) as session:
            return list(session.exec(select(Snapshot).order_by(col(Snapshot.id).desc())).all())

    # Votes

    def add_vote(self, vote: Vote) -> bool:
        """Store a vote; the same UUID again changes nothing. Return whether it was new."""
        with writing(self._engine) as session:
            return insert_vote(session, vote)

    def votes(self) -> list[Vote]:
        """All votes, oldest first."""
        with reading(self._engine) as session:
            return read_votes(session)

    def vote_count(self) -> int:
        """How many votes there are."""
        with reading(self._engine) as session:
            return count_votes(session)


@contextmanager
def _explained(data_dir: Path, url: URL | None = None) -> Iterator[None]:
    """What may be wrong with a data directory or its database, as the sentence to show."""
    elsewhere = "set FACELLM_DATA_DIR to another folder"
    is_file = url is None or url.get_backend_name() == "sqlite"
    name = str(data_dir / DATABASE) if url is None or is_file else described(url)
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Expected a folder that can be written "
            f"to, or a place to make one; {elsewhere}."
        ) from error
    except DatabaseError as error:
        if url is not None and not is_file:
            raise explain(error, url) from error
        raise DataError(
            f"{name} cannot be used: {error.orig}. Expected a SQLite database that FaceLLM Studio has "
            f"made. Put a copy of yours in its place, or {elsewhere}."
        ) from error
    except CommandError as error:
        raise DataError(
            f"{name} has a schema that is not known here: {error}. It was made by a newer FaceLLM "
            f"Studio, it seems; update this one, or {elsewhere if is_file else 'name another database'}."
        ) from error


def _decide(session: Session, reviewer: str, decision: DecisionInput, *, may_settle: bool) -> Decision:
    stored = session.exec(select(Decision).where(Decision.uuid == str(decision.uuid))).first()
    if stored is not None:
        return stored
    which = select(Pair.text).where(Pair.id == decision.pair_id)
    before = session.exec(which).first()
    try:
        if is_trap(decision.pair_id):
            return append_answer(session, reviewer, decision)
        event = append_decision(session, reviewer, decision, may_settle=may_settle)
    except StaleError as error:
        error.pair_id = decision.pair_id
        raise
    leases.release(session, reviewer, ids=[decision.pair_id])
    if before != session.exec(which).one():
        check_again(session, [decision.pair_id])  # another text stands now
    return event


def _views(session: Session, pairs: Sequence[Pair]) -> list[PairView]:
    image_ids = {pair.image_id for pair in pairs}
    images = {image.id: image for image in session.exec(select(Image).where(col(Image.id).in_(image_ids)))}
    labels = labels_of(session, image_ids)
    ids = [pair.id for pair in pairs if pair.id is not None]
    verdicts, flags = verdicts_of(session, ids), flags_of(session, ids)
    return [
        PairView(
            pair,
            images[pair.image_id],
            labels[pair.image_id],
            tuple(verdicts[pair.id or 0]),
            tuple(_as_shown(flag, pair.status) for flag in flags[pair.id or 0]),
        )
        for pair in pairs
    ]


def _as_shown(flag: Flag, status: Status) -> Flag:
    """A judge quotes the draft, so where an edit stands its span would mark other words."""
    if status is not Status.EDITED or flag.check in PAIR_CHECKS:
        return flag
    return flag.model_copy(update={"span_start": None, "span_end": None})
