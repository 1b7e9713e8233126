"""FHIR resources with their history, and what of a study belongs together. Contents are without meta:
version and time are columns, so the same study always gives the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, select

from bridge.errors import InvalidQuery
from bridge.model import Rejection, Resource, StoredResource, StudyResult
from bridge.ports import INSTANCE_QUEUE, Claim, Wait, sink_queue
from bridge.state.holdings import Holdings
from bridge.state.puts import Put, put, put_all
from bridge.state.schema import holding, resource, resource_version, study, work
from bridge.state.work import BATCH

_REFERRED_FIRST = (
    "Endpoint", "Patient", "Device", "ImagingStudy", "DocumentReference", "Observation", "DiagnosticReport",
    "Provenance",
)  # fmt: skip


class Resources(Holdings):
    """Resources, their versions, and the studies they came from."""

    def commit_study(
        self,
        claim: Claim,
        result: StudyResult,
        sinks: Sequence[str],
        row_sinks: Sequence[str],
        now: float,
        finished: bool = True,
        followed_by: Mapping[str, Wait] | None = None,
    ) -> bool:
        """Everything one translation made, in one transaction with the end of its claim (unless not `finished`).

        A resource whose content did not change gets no new version. Sinks are marked when any resource changed,
        `row_sinks` also when only the headers did, queues of `followed_by` as sinks are, after their wait. Result:
        whether any resource changed. Raises LeaseLost.
        """
        uid = result.study_instance_uid
        puts = [put(r["resourceType"], r["id"], r, uid) for r in result.resources]
        with self._db.write() as connection:
            self._db.one_after_another(connection)  # a revision is seen only after all smaller ones
            if finished:
                self._done(connection, claim, now)
            else:
                self._still_held(connection, claim)
            before = connection.execute(select(study).where(study.c.study_instance_uid == uid)).one_or_none()
            digest = self._holding_digest(connection, uid)
            if result.patient is not None:
                self._write_study(connection, result, result.patient, digest, before)
            keys = {result.patient_key, before.patient_key if before else ""} - {""}
            changed = put_all(connection, self._insert, [*self._patients(connection, keys), *puts], now)
            self._replace_rejections(connection, uid, result.rejected, now)
            if changed:
                for sink in (*sinks, *row_sinks):
                    self._mark(connection, sink_queue(sink), [uid], now, 0.0, 0.0, claim.first_marked_at)
                for queue, wait in (followed_by or {}).items():
                    self._mark(connection, queue, [uid], now, wait.quiet_s, wait.max_wait_s)
            elif before is None or before.digest != digest:
                for sink in row_sinks:
                    self._mark(connection, sink_queue(sink), [uid], now, 0.0, 0.0, claim.first_marked_at)
        return changed

    def _holding_digest(self, connection: Connection, uid: str) -> str:
        return self._holding_digests(connection, [uid])[uid]

    def _holding_digests(self, connection: Connection, studies: Sequence[str]) -> dict[str, str]:
        """study → digest of the digests of all that is kept of its headers."""
        kept: dict[str, list[tuple[str, str]]] = {uid: [] for uid in studies}
        columns = select(holding.c.study_instance_uid, holding.c.source, holding.c.digest)
        for start in range(0, len(studies), BATCH):
            some = holding.c.study_instance_uid.in_(studies[start : start + BATCH])
            for uid, source, digest in connection.execute(columns.where(some).order_by(holding.c.source)):
                if digest:
                    kept[uid].append((source, digest))
        return {uid: hashlib.sha256(orjson.dumps(mine)).hexdigest() for uid, mine in kept.items()}

    def _write_study(
        self, connection: Connection, result: StudyResult, patient: Resource, digest: str, before: Any
    ) -> None:
        mine = [["Patient", result.patient_key], *([r["resourceType"], r["id"]] for r in result.resources)]
        old = [ref for ref in orjson.loads(before.resources) if ref not in mine] if before else []
        statement = self._insert(study).values(
            study_instance_uid=result.study_instance_uid,
            patient_key=result.patient_key,
            patient_rank=result.patient_rank,
            patient=orjson.dumps(patient, option=orjson.OPT_SORT_KEYS),
            resources=orjson.dumps(mine + old),
            remarks=orjson.dumps([asdict(remark) for remark in result.remarks]),
            digest=digest,
        )
        names = ("patient_key", "patient_rank", "patient", "resources", "remarks", "digest")
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[study.c.study_instance_uid], set_={n: statement.excluded[n] for n in names}
            )
        )

    def _patients(self, connection: Connection, keys: set[str]) -> list[Put]:
        """The Patient of all studies with a key: as the highest-ranked study has it; deleted with the last one."""
        found = []
        for key in sorted(keys):
            best = (
                select(study.c.patient)
                .where(study.c.patient_key == key)
                .order_by(study.c.patient_rank.desc(), study.c.study_instance_uid.desc())
                .limit(1)
            )
            body = connection.execute(best).scalar()
            found.append(put("Patient", key, None if body is None else orjson.loads(body)))
        return found

    def _replace_rejections(self, connection: Connection, uid: str, rejected: Sequence[Rejection], now: float) -> None:
        prefix = f"{uid}/"
        mine = (work.c.queue == INSTANCE_QUEUE) & (work.c.key >= prefix) & (work.c.key < f"{uid}0")
        connection.execute(delete(work).where(mine))
        keyed = [Rejection(prefix + r.key, r.error, r.evidence) for r in rejected]
        self._park_rejections(connection, INSTANCE_QUEUE, keyed, now)

    def replay(self, queue: str, key: str, now: float) -> None:
        """Try a parked row again now; a parked instance by reading its study again. Raises InvalidQuery."""
        if queue != INSTANCE_QUEUE:
            super().replay(queue, key, now)
            return
        uid = key.split("/", 1)[0]
        with self._db.write() as connection:
            there = connection.execute(select(work.c.key).where(work.c.queue == queue, work.c.key == key)).first()
            if there is None:
                raise InvalidQuery("nothing parked in queue instance under this key")
            sources = (
                connection.execute(select(holding.c.source).where(holding.c.study_instance_uid == uid)).scalars().all()
            )
            for source in sources:
                self._hint(connection, source, [uid], now, 0.0, 0.0)

    def read_resource(self, resource_type: str, id_: str, version: int | None = None) -> StoredResource | None:
        """One resource, newest or of one version; content None when that version is a deletion; None if never seen."""
        wanted = (resource_version.c.resource_type == resource_type) & (resource_version.c.id == id_)
        statement = select(resource_version).where(wanted)
        if version is None:
            statement = statement.order_by(resource_version.c.version.desc()).limit(1)
        else:
            statement = statement.where(resource_version.c.version == version)
        with self._db.read() as connection:
            row = connection.execute(statement).one_or_none()
        return stored(row) if row is not None else None

    def resource_history(
        self, resource_type: str, id_: str, limit: int, offset: int
    ) -> tuple[int, list[StoredResource]]:
        """(number of versions, some of them newest first)."""
        wanted = (resource_version.c.resource_type == resource_type) & (resource_version.c.id == id_)
        statement = select(resource_version).where(wanted).order_by(resource_version.c.version.desc())
        with self._db.read() as connection:
            total = connection.execute(select(func.count()).select_from(resource_version).where(wanted)).scalar_one()
            rows = connection.execute(statement.limit(limit).offset(offset)).all()
        return total, [stored(row) for row in rows]

    def study_resources(self, study_instance_uid: str) -> tuple[StoredResource, ...]:
        """The newest versions of everything that belongs to a study, referenced ones first; deletions among them."""
        return self.studies_resources([study_instance_uid]).get(study_instance_uid, ())

    def studies_resources(self, studies: Sequence[str]) -> dict[str, tuple[StoredResource, ...]]:
        """study → the same, for those of the studies that are known: few queries for many."""
        with self._db.read() as connection:
            refs = _refs(connection, studies)
            columns, known = list(resource_version.c), dict[tuple[str, str], StoredResource]()
            for kind, ids in _by_type(refs).items():
                known |= {(kind, row.id): stored(row) for row in _newest(connection, columns, kind, ids)}
        return {
            uid: tuple(
                sorted(
                    (known[ref] for ref in dict.fromkeys(mine) if ref in known),
                    key=lambda r: (_REFERRED_FIRST.index(r.resource_type), r.id),
                )
            )
            for uid, mine in refs.items()
        }

    def imaging_studies(self, studies: Sequence[str]) -> Iterator[tuple[str, Resource]]:
        """(study, its ImagingStudy; {} for none) of those of the studies that are known, one content at a time."""
        columns = [resource.c.id, resource_version.c.content]
        with self._db.read() as connection:
            refs = _refs(connection, studies)
            of = {id_: uid for uid, mine in refs.items() for kind, id_ in mine if kind == "ImagingStudy"}
            left = set(refs)
            for row in _newest(connection, columns, "ImagingStudy", sorted(of)):
                if row.content is not None:
                    left.discard(of[row.id])
                    yield of[row.id], orjson.loads(row.content)
        yield from ((uid, {}) for uid in sorted(left))

    def newest_contents(self, resource_type: str, ids: Sequence[str]) -> dict[str, Resource]:
        """id → the newest content, of the resources that there are and that are not deleted."""
        columns = [resource.c.id, resource_version.c.content]
        with self._db.read() as connection:
            rows = _newest(connection, columns, resource_type, ids)
            return {row.id: orjson.loads(row.content) for row in rows if row.content is not None}

    def study_remarks(self, study_instance_uid: str) -> list[dict[str, Any]] | None:
        """What was left out of a study, or None when the study is not known."""
        with self._db.read() as connection:
            found = connection.execute(
                select(study.c.remarks).where(study.c.study_instance_uid == study_instance_uid)
            ).scalar()
        return None if found is None else orjson.loads(found)

    def counts(self) -> dict[str, int]:
        """Current resources by type, without deleted ones."""
        statement = (
            select(resource.c.resource_type, func.count())
            .where(resource.c.deleted.is_(False))
            .group_by(resource.c.resource_type)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement.order_by(resource.c.resource_type))}


def _refs(connection: Connection, studies: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """study → (type, id) of everything that belongs to it, for those of the studies that are known."""
    found: dict[str, list[tuple[str, str]]] = {}
    columns = select(study.c.study_instance_uid, study.c.resources)
    for start in range(0, len(studies), BATCH):
        some = study.c.study_instance_uid.in_(studies[start : start + BATCH])
        for row in connection.execute(columns.where(some)):
            found[row.study_instance_uid] = [(kind, id_) for kind, id_ in orjson.loads(row.resources)]
    return found


def _by_type(refs: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, list[str]]:
    """type → ids, each once."""
    found: dict[str, set[str]] = {}
    for mine in refs.values():
        for kind, id_ in mine:
            found.setdefault(kind, set()).add(id_)
    return {kind: sorted(ids) for kind, ids in found.items()}


def _newest(connection: Connection, columns: Sequence[Any], resource_type: str, ids: Sequence[str]) -> Iterator[Any]:
    """Columns of the newest versions of those of the resources that there are, in no order."""
    joined = resource_version.join(
        resource,
        (resource.c.resource_type == resource_version.c.resource_type)
        & (resource.c.id == resource_version.c.id)
        & (resource.c.version == resource_version.c.version),
    )
    for start in range(0, len(ids), BATCH):
        some = (resource.c.resource_type == resource_type) & resource.c.id.in_(ids[start : start + BATCH])
        yield from connection.execute(select(*columns).select_from(joined).where(some))


def stored(row: Any) -> StoredResource:
    """A row of resource_version as a value."""
    content = None if row.content is None else orjson.loads(row.content)
    return StoredResource(row.resource_type, row.id, row.version, row.last_updated, row.revision, content)
