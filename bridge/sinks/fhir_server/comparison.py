"""Whether a FHIR server has of each study what the bridge made of it. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.errors import RejectedInput
from bridge.model import Resource, StudyState
from bridge.sinks.fhir_server.client import FhirClient
from bridge.sinks.fhir_server.content import OURS, version_of, without_instances
from bridge.sinks.fhir_server.studies import Studies

_ELSEWHERE = frozenset({"id", "subject", "encounter", "basedOn", "endpoint", "series", "referrer"})
"""Elements in which a server may rightly have something else: whom and what it refers to by its own ids."""

_COUNTS = ("status", "numberOfSeries", "numberOfInstances")


class Compared:
    """`project` gives a study as this server's version of FHIR has it."""

    def __init__(self, client: FhirClient, studies: Studies) -> None:
        self._client, self._studies = client, studies

    def differing(
        self, states: Sequence[StudyState], project: Callable[[Resource], Resource], *, whole: bool
    ) -> dict[str, tuple[str, str]]:
        """study → (level, problem). A study is read whole if asked, and where the server has another version of it
        than was delivered.

        Raises  SinkUnavailable
        """
        wanted = {s.study_instance_uid: s for s in states if _study(s) is not None}
        found = self._studies.find(list(wanted), ",".join(("identifier", *_COUNTS)))
        differing = {uid: self._problem(s, found.get(uid, []), project, whole) for uid, s in wanted.items()}
        return {uid: problem for uid, problem in differing.items() if problem is not None}

    def _problem(
        self, state: StudyState, found: Sequence[Resource], project: Callable[[Resource], Resource], whole: bool
    ) -> tuple[str, str] | None:
        study, receipt = _study(state) or {}, state.receipt
        if receipt is not None and not receipt.reference and study["status"] == "entered-in-error":
            return ("study", "it was deleted there, and is there again") if found else None
        if not found:
            return ("study", "the server does not have it") if receipt else ("study", "it was never delivered")
        if len(found) > 1:
            return "study", f"the server has {len(found)} ImagingStudy resources of it: see bridge dedupe"
        there, study = found[0], project(study)
        for name, level in (("status", "content"), ("numberOfSeries", "series"), ("numberOfInstances", "instance")):
            if study.get(name) != there.get(name):
                return level, f"ImagingStudy.{name} differs"
        as_delivered = receipt is not None and receipt.version_id != "" and receipt.version_id == version_of(there)
        return None if as_delivered and not whole else self._content(study, str(there["id"]))

    def _content(self, study: Resource, id_: str) -> tuple[str, str] | None:
        try:
            there = self._client.read(f"ImagingStudy/{id_}")
        except RejectedInput as error:
            return "study", str(error)
        if there is None:
            return "study", "the server does not have it"
        ours, theirs = _by_series(study), _by_series(there)
        if ours.keys() != theirs.keys():
            return "series", f"{len(ours.keys() ^ theirs.keys())} series are of one side alone"
        if any(theirs.values()):  # else: too large for the server, delivered without its instances
            different = sum(len(ours[uid] ^ theirs[uid]) for uid in ours)
            if different:
                return "instance", f"{different} instances are of one side alone"
        elements = OURS["ImagingStudy"] - _ELSEWHERE
        different_elements = sorted(name for name in elements if study.get(name) != there.get(name))
        if different_elements:
            return "content", f"ImagingStudy.{different_elements[0]} differs"
        mine, other = without_instances(study).get("series", []), without_instances(there).get("series", [])
        same = list(map(_plain, mine)) == list(map(_plain, other))
        return None if same else ("content", "ImagingStudy.series differs")


def _study(state: StudyState) -> Resource | None:
    return next((r.content for r in state.of_type("ImagingStudy") if r.content is not None), None)


def _by_series(study: Mapping[str, object]) -> dict[str, set[str]]:
    """series → its instances, by UID."""
    series = study.get("series", [])
    listed = series if isinstance(series, list) else []
    return {str(one.get("uid")): {str(i.get("uid")) for i in one.get("instance", [])} for one in listed}


def _plain(series: Resource) -> Resource:
    return {k: v for k, v in series.items() if k not in ("id", "endpoint")}
