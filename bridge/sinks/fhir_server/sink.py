"""A FHIR server as a sink: what the server has is read, and what differs is written."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import httpx

from bridge.errors import Conflict, ProjectError, RejectedInput, SinkUnavailable
from bridge.model import Receipt, Resource, StudyState
from bridge.sinks.fhir_server.capabilities import Capabilities, capabilities
from bridge.sinks.fhir_server.client import Doubtful, FhirClient, TooLarge
from bridge.sinks.fhir_server.comparison import Compared
from bridge.sinks.fhir_server.content import digest, merged, referring, same, version_of, without_instances
from bridge.sinks.fhir_server.duplicates import Duplicates
from bridge.sinks.fhir_server.orders import LINKED, linked
from bridge.sinks.fhir_server.results import Results
from bridge.sinks.fhir_server.shared import Endpoints, Patients
from bridge.sinks.fhir_server.studies import Studies
from bridge.sinks.fhir_server.subjects import Found, SubjectPolicy, Subjects
from bridge.sinks.fhir_server.writer import Upsert, Writer, Written
from bridge.translate.r5 import to_r5

log = logging.getLogger("bridge.sinks.fhir_server")

CAPABILITIES_KEPT_S = 3600.0
_NO_CONTENT = frozenset({"entered-in-error"})


@dataclass(frozen=True)
class FhirServerPolicy:
    """How a site wants its server to be written to; see the settings of the same names."""

    subjects: SubjectPolicy = field(default_factory=SubjectPolicy)
    orders: tuple[str, ...] = LINKED
    withdrawn: str = "status"
    recreate_deleted: bool = False
    bundle_entries: int = 50
    bundle_bytes: int = 4_194_304


@dataclass
class _Job:
    """One study on its way: `there` is what the server has of it; the first `error` ends it."""

    state: StudyState
    study: Resource
    there: Resource | None = None
    error: ProjectError | None = None
    receipt: Receipt | None = None
    upsert: Upsert | None = None
    digest: str = ""
    raced: bool = False
    """Made under an id that the server gave: another writer may have done the same."""

    @property
    def uid(self) -> str:
        return self.state.study_instance_uid

    @property
    def going(self) -> bool:
        return self.error is None and self.receipt is None


class FhirServerSink:
    """Makes the ImagingStudy, Endpoint and (by policy) Patient resources of one FHIR R4 or R5 server match the state,
    and those of AI results.

    Every delivery reads what the server has, so a repeated one, one after an unknown outcome and one after foreign
    changes are all the same case. For one thread at a time.
    """

    wants_rows = False

    def __init__(
        self,
        name: str,
        url: str,
        *,
        policy: FhirServerPolicy | None = None,
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self._policy, self._clock = name, policy or FhirServerPolicy(), clock
        self.batch_size = self._policy.bundle_entries
        self._client = FhirClient(name, url, auth=auth, tls=tls, timeout_s=timeout_s, transport=transport, pause=pause)
        self._writer = Writer(self._client, entries=self._policy.bundle_entries, size=self._policy.bundle_bytes)
        self._subjects = Subjects(self._client, self._policy.subjects)
        self._endpoints, self._patients = Endpoints(self._client, self._writer), Patients(self._client, self._writer)
        self._studies, self._results = Studies(self._client), Results(self._client, self._writer)
        self.duplicates = Duplicates(self._client, self._studies)
        self._compared = Compared(self._client, self._studies)
        self._offered: Capabilities | None = None
        self._offered_until = 0.0

    def close(self) -> None:
        self._client.close()

    def deliver(self, states: Sequence[StudyState]) -> list[Receipt | ProjectError | None]:
        """One outcome for each study, in order; None where there is nothing to deliver.

        Raises  SinkUnavailable when the server as a whole cannot be read or written now
        """
        try:
            return self._deliver(states)
        except (RejectedInput, Conflict) as error:
            if len(states) == 1:
                return [error]
        return [outcome for state in states for outcome in self.deliver([state])]

    def differing(self, states: Sequence[StudyState], *, whole: bool) -> dict[str, tuple[str, str]]:
        """study → (level, problem) where the server has something else than the state; with `whole`, every study is
        read whole. Writes nothing. Raises SinkUnavailable."""
        project = to_r5 if self.offered().fhir_version == "R5" else _as_it_is
        return self._compared.differing(states, project, whole=whole)

    def _deliver(self, states: Sequence[StudyState]) -> list[Receipt | ProjectError | None]:
        """All of them with few requests. Raises RejectedInput, Conflict when what they share is refused."""
        jobs = {s.study_instance_uid: _Job(s, study) for s in states if (study := _study(s)) is not None}
        offered = self.offered()
        project = to_r5 if offered.fhir_version == "R5" else _as_it_is
        self._look(list(jobs.values()))
        self._delete_withdrawn([j for j in jobs.values() if j.going])
        self._describe([j for j in jobs.values() if j.going], offered, project)
        self._compare([j for j in jobs.values() if j.going])
        self._write([j for j in jobs.values() if j.going], offered)
        self._settle_races([j for j in jobs.values() if j.raced])
        self._write_results([j for j in jobs.values() if j.error is None and j.receipt], offered, project)
        return _outcomes(states, jobs)

    def offered(self) -> Capabilities:
        """What the server can do, read once an hour. Raises SinkUnavailable."""
        if self._offered is None or self._clock() >= self._offered_until:
            statement = self._client.read("metadata")
            if statement is None:
                raise SinkUnavailable(f"sink {self.name}: there is no metadata below url: check url")
            self._offered = capabilities(statement, f"sink {self.name}")
            self._offered_until = self._clock() + CAPABILITIES_KEPT_S
            self._endpoints.forget()
        return self._offered

    def _look(self, jobs: Sequence[_Job]) -> None:
        """What the server has of each study; by identifier, so that a study somebody else made is found as well."""
        found = self._studies.find([j.uid for j in jobs])
        for job in jobs:
            try:
                mine = {str(job.study["id"]), self._delivered_as(job)}
                job.there = self._studies.chosen(found.get(job.uid, []), mine)
                if job.there is None and (known := self._delivered_as(job)):
                    job.there = self._missing(known)
            except (RejectedInput, Conflict, Doubtful) as error:
                job.error = error

    def _delivered_as(self, job: _Job) -> str:
        """The id under which the study was delivered to this server; "" when it was not, or the bridge deleted it."""
        prefix, receipt = f"{self._client.url}/ImagingStudy/", job.state.receipt
        known = receipt is not None and receipt.reference.startswith(prefix)
        return receipt.reference.removeprefix(prefix) if receipt is not None and known else ""

    def _receipt(self, id_: str, version_id: str, job: _Job) -> Receipt:
        return Receipt(f"{self._client.url}/ImagingStudy/{id_}", version_id, job.digest)

    def _missing(self, id_: str) -> Resource | None:
        """A study that was delivered and is not found: without its identifier now, or deleted by somebody."""
        there = self._client.read(f"ImagingStudy/{id_}")
        if there is None and not self._policy.recreate_deleted:
            raise RejectedInput(
                "ImagingStudy: it was delivered and somebody has deleted it on the server since; to have it made again "
                "set recreate_deleted = true and replay"
            )
        return there

    def _delete_withdrawn(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            if self._policy.withdrawn != "delete" or job.study["status"] not in _NO_CONTENT:
                continue
            try:
                if job.there is not None:
                    self._writer.delete("ImagingStudy", str(job.there["id"]))
                job.receipt = Receipt("", "", "")
            except Conflict:
                log.info(
                    "sink %s: a withdrawn study is referred to by others: its status was changed instead", self.name
                )
            except (RejectedInput, Doubtful) as error:
                job.error = error

    def _describe(self, jobs: Sequence[_Job], offered: Capabilities, project: Callable[[Resource], Resource]) -> None:
        """The study as this server should have it: its patient, its orders, its endpoints there, its FHIR version."""
        wanted = {p["id"]: p for j in jobs if (p := _patient(j)) is not None}
        subjects = self._made(self._subjects.find(wanted, offered), wanted, offered)
        endpoints = [r.content for j in jobs for r in j.state.of_type("Endpoint") if r.content is not None]
        names = self._endpoints.references(endpoints, offered, project) if endpoints else {}
        for job in jobs:
            patient = _patient(job)
            found = subjects[patient["id"]] if patient is not None else Found(_NOBODY)
            job.error = found.error
            job.study = referring(job.study, names) | {"subject": found.subject}
        known = linked(self._client, [j.study for j in jobs if j.going], offered, self._policy.orders)
        for job in jobs:
            job.study = project(known.apply(job.study))

    def _made(self, subjects: dict[str, Found], wanted: dict[str, Resource], offered: Capabilities) -> dict[str, Found]:
        """The subjects, after those Patients that the bridge has to make or to mend are written."""
        to_make = {
            k: (wanted[k], f.update) for k, f in subjects.items() if f.create is not None or f.update is not None
        }
        if not to_make:
            return subjects
        made = dict(subjects)
        for key, outcome in self._patients.make(to_make, offered).items():
            if isinstance(outcome, ProjectError):
                made[key] = Found(error=outcome)
            else:
                subject = {"reference": f"Patient/{outcome}", "type": "Patient"}
                made[key] = Found({**subjects[key].subject, **subject})
        return made

    def _compare(self, jobs: Sequence[_Job]) -> None:
        """Leaves out what is there already; else prepares what to write."""
        for job in jobs:
            job.digest = digest(job.study)
            if job.there is not None:
                unchanged = self._receipt(str(job.there["id"]), version_of(job.there), job)
                if unchanged.version_id and unchanged == job.state.receipt:
                    job.receipt = unchanged
                    continue
                try:
                    job.there = self._client.read(f"ImagingStudy/{job.there['id']}")
                except (RejectedInput, Doubtful) as error:
                    job.error = error
                    continue
                if job.there is not None and same(job.study, job.there):
                    job.receipt = self._receipt(str(job.there["id"]), version_of(job.there), job)
                    continue
            there = str(job.there["id"]) if job.there else ""
            content = merged(job.study, job.there)
            job.upsert = Upsert(content, self._studies.token(job.uid), there, version_of(job.there))

    def _write(self, jobs: Sequence[_Job], offered: Capabilities) -> None:
        upserts = [j.upsert for j in jobs if j.upsert is not None]
        for job, upsert, outcome in zip(jobs, upserts, self._writer.write(upserts, offered), strict=True):
            written = self._smaller(upsert, offered) if isinstance(outcome, TooLarge) else outcome
            if isinstance(written, Written):
                job.receipt, job.raced = self._receipt(written.id, written.version_id, job), written.created
            else:
                job.error = written

    def _smaller(self, upsert: Upsert, offered: Capabilities) -> Written | ProjectError:
        """A study too large for the server goes without its instance level."""
        (outcome,) = self._writer.write([replace(upsert, content=without_instances(upsert.content))], offered)
        if isinstance(outcome, Written):
            log.warning("sink %s: a study is too large for the server: its instances are not listed there", self.name)
        return outcome

    def _settle_races(self, jobs: Sequence[_Job]) -> None:
        """Studies just made under an id of the server's: had another writer the same idea, one of them goes."""
        if not jobs:
            return
        written = {j.uid: j.receipt.reference.rpartition("/")[2] for j in jobs if j.receipt is not None}
        found = self._studies.find(list(written))
        for job in jobs:
            try:
                self._studies.chosen(found.get(job.uid, []), {written[job.uid]})
            except ProjectError as error:
                job.error = error

    def _write_results(
        self, jobs: Sequence[_Job], offered: Capabilities, project: Callable[[Resource], Resource]
    ) -> None:
        """The AI results of studies that are there."""
        for job in jobs:
            study_id = job.receipt.reference.rpartition("/")[2] if job.receipt is not None else ""
            if not study_id:
                continue
            try:
                self._results.deliver(job.state, job.study, study_id, offered, project)
            except (RejectedInput, Conflict, Doubtful) as error:
                job.error = error


_NOBODY: Resource = {"type": "Patient", "display": "not identified in the images"}


def _outcomes(states: Sequence[StudyState], jobs: dict[str, _Job]) -> list[Receipt | ProjectError | None]:
    """What the server refused to all alike is the server's trouble; what it did for others, the study's own."""
    works = any(j.error is None or isinstance(j.error, RejectedInput) for j in jobs.values())
    outcomes: list[Receipt | ProjectError | None] = []
    for state in states:
        job = jobs.get(state.study_instance_uid)
        error = job.error if job is not None else None
        if isinstance(error, Doubtful) and works:
            error = Conflict(str(error))
        outcomes.append(error or (job.receipt if job is not None else None))
    return outcomes


def _study(state: StudyState) -> Resource | None:
    return next((r.content for r in state.of_type("ImagingStudy") if r.content is not None), None)


def _patient(job: _Job) -> Resource | None:
    reference = job.study["subject"].get("reference", "").removeprefix("Patient/")
    return next((r.content for r in job.state.of_type("Patient") if r.id == reference and r.content is not None), None)


def _as_it_is(resource: Resource) -> Resource:
    return resource
