"""What was done in a study and why: procedure and reason codes → FHIR CodeableConcepts."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.model import Resource
from bridge.translate.codes import concept, schemes_of
from bridge.translate.headers import Headers
from bridge.translate.merge import distinct
from bridge.translate.orders import requests_of
from bridge.translate.site import Site

_SCHEMES = "CodingSchemeIdentificationSequence"
_REQUESTS = ("RequestAttributesSequence", "ReferencedRequestSequence")


def procedure_codes(instances: Sequence[Headers], site: Site) -> list[Resource]:
    """Each distinct procedure once: as performed, else as requested.

    From    PS3.3 C.7.2.1 ProcedureCodeSequence; RequestedProcedureCodeSequence of the study and of its requests
    To      FHIR R4 ImagingStudy.procedureCode
    """
    return _concepts(instances, "ProcedureCodeSequence", site) or _concepts(
        instances, "RequestedProcedureCodeSequence", site
    )


def reasons(instances: Sequence[Headers], site: Site) -> list[Resource]:
    """Each distinct reason of the requests once: coded, else in words.

    From    PS3.3 10.6 ReasonForRequestedProcedureCodeSequence, ReasonForTheRequestedProcedure
    To      FHIR R4 ImagingStudy.reasonCode
    """
    coded = _concepts(instances, "ReasonForRequestedProcedureCodeSequence", site)
    if coded:
        return coded
    keyword = "ReasonForTheRequestedProcedure"
    texts = {
        " ".join(holder.text(keyword).split())
        for headers in distinct(instances, keyword, *_REQUESTS)
        for holder in (headers, *requests_of(headers))
    } - {""}
    return [{"text": text} for text in sorted(texts)]


def _concepts(instances: Sequence[Headers], keyword: str, site: Site) -> list[Resource]:
    found: dict[str, Resource] = {}
    for headers in distinct(instances, keyword, *_REQUESTS, _SCHEMES):
        schemes = schemes_of(headers, site.tables)
        for holder in (headers, *requests_of(headers)):
            for item in holder.items_of(keyword):
                if made := concept(item, site.tables, schemes):
                    found.setdefault(repr(made), made)
    return [found[key] for key in sorted(found)]
