"""Who and what made a study: DICOM people and equipment → FHIR References (PS3.3 10.1, C.7.3.1, C.7.5.1)."""

from __future__ import annotations

from bridge.model import Resource
from bridge.translate.codes import NO_SCHEMES, Schemes, own_coding
from bridge.translate.headers import EMPTY, Headers, PersonName
from bridge.translate.identifiers import identifier
from bridge.translate.merge import Remarks
from bridge.translate.names import display
from bridge.translate.site import Site
from bridge.translate.uids import uid_identifier

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PERFORMERS = (
    ("PRF", "PerformingPhysicianName", "PerformingPhysicianIdentificationSequence"),
    ("SPRF", "OperatorsName", "OperatorIdentificationSequence"),
)
PEOPLE_OF_A_SERIES = tuple(keyword for _, *keywords in _PERFORMERS for keyword in keywords)
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "DeviceUID", "StationName")


def practitioners(
    values: Headers, names: str, identifications: str, site: Site, remarks: Remarks, schemes: Schemes = NO_SCHEMES
) -> list[Resource]:
    """References to the people that an attribute names, with the identifier its identification sequence has of each.

    From    PS3.3 Table 10-1 Person Identification Macro: PersonIdentificationCodeSequence; its items stand in the
            order of the names
    To      FHIR R4 Reference: `display`, and a logical `identifier` where the code's scheme has a system
    """
    shown = values.names(names)
    items = values.items_of(identifications)
    if shown and items and len(shown) != len(items):
        remarks.add(identifications, f"has not as many items as {names} has names; it was left out")
        items = ()
    count = max(len(shown), len(items))
    found = [
        _practitioner(
            shown[i] if i < len(shown) else PersonName(), items[i] if i < len(items) else EMPTY, site, schemes
        )
        for i in range(count)
    ]
    return [one for one in found if one]


def _practitioner(name: PersonName, identification: Headers, site: Site, schemes: Schemes) -> Resource:
    code = identification.item("PersonIdentificationCodeSequence")
    known = own_coding(code, site.tables, schemes)
    made: Resource = {}
    if known is not None:
        made |= {"type": "Practitioner", "identifier": {"system": known["system"], "value": known["code"]}}
    if shown := display(name) or (" ".join(code.text("CodeMeaning").split()) if known else ""):
        made["display"] = shown
    return made


def performers(values: Headers, site: Site, remarks: Remarks, schemes: Schemes = NO_SCHEMES) -> list[Resource]:
    """FHIR R4 ImagingStudy.series.performer: performing physicians, operators, and the equipment.

    From    PS3.3 C.7.3.1 PerformingPhysicianName, OperatorsName and their identification sequences; C.7.5.1
    To      function PRF for physicians, SPRF for operators (v3-ParticipationType); none for the equipment
    """
    found: list[Resource] = []
    for function, names, identifications in _PERFORMERS:
        function_code = {"coding": [{"system": _PARTICIPATION, "code": function}]}
        for actor in practitioners(values, names, identifications, site, remarks, schemes):
            found.append({"function": function_code, "actor": actor})
    if device := equipment(values):
        found.append({"actor": device})
    return found


def equipment(values: Headers) -> Resource | None:
    """A logical reference to the Device; None when neither model, nor serial number, nor UID say which.

    From    PS3.3 C.7.5.1 Manufacturer, ManufacturerModelName, DeviceSerialNumber, DeviceUID, StationName
    To      FHIR R4 Reference: identifier the UID, else the serial number (v2-0203 SNO) with its manufacturer
    """
    manufacturer, model, serial, station = (
        " ".join(values.text(k).split())
        for k in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "StationName")
    )
    known = uid_identifier(values.text("DeviceUID"))
    if known is None and serial:
        known = identifier("SNO", "", serial, manufacturer)
    if known is None and not model:
        return None
    shown = " ".join(filter(None, [manufacturer, model, f"({station})" if station else ""]))
    made: Resource = {"type": "Device"}
    if known is not None:
        made["identifier"] = known
    return made | ({"display": shown} if shown else {})
