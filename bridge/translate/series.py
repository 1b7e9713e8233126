"""One series of a merged study → FHIR R4 ImagingStudy.series."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.model import Resource
from bridge.translate.anatomy import body_site, laterality
from bridge.translate.codes import modality_code, modality_coding, schemes_of
from bridge.translate.headers import Headers
from bridge.translate.instances import instances, text_of, unsigned_int
from bridge.translate.merge import Remarks, Series, agreed, agreed_of
from bridge.translate.people import EQUIPMENT, PEOPLE_OF_A_SERIES, performers
from bridge.translate.site import Site
from bridge.translate.specimens import specimens
from bridge.translate.started import SERIES_DATES, series_started

_KEYWORDS = (
    "Modality", "SeriesNumber", "SeriesDescription", "TimezoneOffsetFromUTC", "BodyPartExamined",
    "AnatomicRegionSequence", "Laterality", "CodingSchemeIdentificationSequence", *PEOPLE_OF_A_SERIES, *EQUIPMENT,
    *(keyword for pair in SERIES_DATES for keyword in pair),
)  # fmt: skip


def in_order(series: Sequence[Series]) -> list[Series]:
    """The series by SeriesNumber, those without one last, then by UID."""

    def place(one: Series) -> tuple[bool, int, str]:
        number = next((n for i in one.instances if (n := i.integer("SeriesNumber")) is not None), None)
        return number is None, number or 0, one.series_instance_uid

    return sorted(series, key=place)


def modality(found: Sequence[Headers], site: Site) -> str:
    """The Modality to put out for a series: agreed, mapped by the site; OT when it has none that can be a code."""
    value = agreed(found, "Modality")
    text = str(value[0]).strip().upper() if value else ""
    return modality_code(text, site.tables) if text and len(text.split()) == 1 else "OT"


def series_element(
    series: Series, endpoints: Sequence[Resource], site: Site, remarks: Remarks, with_instances: bool
) -> Resource:
    """FHIR R4 ImagingStudy.series; `endpoints` references where only some of the study's archives hold it.

    From    PS3.3 C.7.3.1 General Series, C.7.5.1 General Equipment, and what its instances say of body and specimen
    """
    found = series.instances
    values = agreed_of(found, remarks, *_KEYWORDS)
    schemes = schemes_of(values, site.tables)
    if not values.text("Modality"):
        remarks.add("Modality", "is missing in a series; OT was taken")
    elements: Resource = {
        "uid": series.series_instance_uid,
        "number": unsigned_int(values, "SeriesNumber", remarks),
        "modality": modality_coding(modality(found, site), site.tables),
        "description": text_of(values, "SeriesDescription"),
        "numberOfInstances": len(found),
        "endpoint": list(endpoints),
        "bodySite": body_site(found, values, site, schemes, remarks),
        "laterality": laterality(found, values, site, schemes, remarks),
        "specimen": specimens(found, site.issuers),
        "started": series_started(found, values, site.zone_of(found), remarks),
        "performer": performers(values, site, remarks, schemes),
        "instance": instances(found, remarks) if with_instances else [],
    }
    return {name: value for name, value in elements.items() if value not in (None, "", [])}
