"""Measurement groups and qualitative evaluations of a TID 1500 document as findings in their JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bridge.errors import Refusal, RefusedResult
from bridge.findings.sr_tree import ContentItem, Json

_TRACKING_ID, _TRACKING_UID = "112039 DCM", "112040 DCM"
_FINDING, _CATEGORY, _SITE, _SIDE = "121071 DCM", "276214006 SCT", "363698007 SCT", "272741003 SCT"
_SEGMENT, _SEGMENT_FRAME = "121191 DCM", "121214 DCM"
_DERIVATION, _CERTAINTY, _COMMENT = "121401 DCM", "111012 DCM", "121106 DCM"
SIDES = {"7771000": "left", "24028007": "right", "51440002": "bilateral"}
_PRESENCE = {"52101004": "present", "2667000": "absent", "373068000": "undetermined"}
_NOT_EVALUATED = frozenset({
    _TRACKING_ID, _FINDING, _CATEGORY, _SITE, "130400 DCM", "C67447 NCIt", "370129005 SCT", "111000 DCM", "111001 DCM",
    "111002 DCM", "111003 DCM", "122405 DCM", "C2348792 UMLS", "126070 DCM", "126071 DCM", "126072 DCM",
})  # fmt: skip
"""CODE and TEXT items of a group that say what it is and how it was made, not what was found."""


class Groups:
    """Findings of one document, whose evidence says in which series each instance is."""

    def __init__(self, series_of: Mapping[str, str]) -> None:
        self._series_of = series_of

    def of_group(self, group: ContentItem, number: str) -> Iterator[Json]:
        """A group as one finding with its measurements, and each qualitative evaluation in it as one more.

        A Finding is present, unless an evaluation of the group says by SNOMED CT's codes that it is absent or
        undetermined. A group without a Finding is only its measurements.
        """
        shared = self._shared(group)
        finding = self._coded(group, _FINDING)
        made: Json = {"id": number, "code": finding or _code("125007", "Measurement Group")} | shared
        if finding:
            made["presence"] = _presence(group)
        self._measure(made, group)
        if (comment := group.child(_COMMENT, value_type="TEXT")) is not None and comment.words:
            made["text"] = comment.words
        said = bool(finding or made.get("measurements"))
        if said:
            yield made
        yield from self.evaluations(group, shared, number, commented=said)

    def evaluations(self, container: ContentItem, shared: Json, number: str, commented: bool = False) -> Iterator[Json]:
        """Each CODE or TEXT item that evaluates as a finding of its own; not a Comment that is another's text."""
        left_out = _NOT_EVALUATED | {_COMMENT} if commented else _NOT_EVALUATED
        items = (i for i in container.children() if i.name_code and i.name not in left_out)
        for n, item in enumerate((i for i in items if i.value_type in ("CODE", "TEXT")), 1):
            said = _said(item)
            if any(said.values()):
                yield {"id": f"{number}.{n}", "code": item.name_code} | shared | said

    def derived(self, container: ContentItem, number: str) -> Iterator[Json]:
        """Derived Imaging Measurements (TID 1420) as one finding."""
        made: Json = {"id": number, "code": _code("126011", "Derived Imaging Measurements")}
        self._measure(made, container)
        if made.get("measurements"):
            yield made

    def _measure(self, made: Json, group: ContentItem) -> None:
        for item in group.children(value_type="NUM"):
            measured, name = item.measured, item.name_code
            if measured is None or name is None:
                continue
            unit = measured["unit"]
            if unit["scheme"] != "UCUM":
                raise RefusedResult((Refusal("MeasurementUnitsCodeSequence", "has a unit that is none of UCUM"),))
            if item.name == _CERTAINTY and unit["code"] == "%":
                made["confidence"] = {"value": measured["value"], "scale": "percent"}
                continue
            one = {"code": name, "value": measured["value"], "unit": unit["code"]}
            if derivation := self._coded(item, _DERIVATION):
                one["derivation"] = derivation
            made.setdefault("measurements", []).append(one)

    def _shared(self, group: ContentItem) -> Json:
        """What a group says of all that is in it: tracking, site, images, regions, segments."""
        location, images = self._location(group), list(self._images(group))
        tracking, uid = group.child(_TRACKING_ID), group.child(_TRACKING_UID)
        made: Json = {"location": location, "images": images}
        made |= {"tracking_uid": uid.uid} if uid else {}
        made |= {"tracking_identifier": " ".join(tracking.words.split())[:200]} if tracking else {}
        return {k: v for k, v in made.items() if v}

    def _location(self, group: ContentItem) -> Json:
        made: Json = {}
        if (site := group.child(_SITE)) is not None and site.code:
            made["body_site"] = site.code
            if (side := self._coded(site, _SIDE)) and side["code"] in SIDES:
                made["laterality"] = SIDES[side["code"]]
        planar = [r for item in group.children(value_type="SCOORD") for r in self._planar(item)]
        space = [r for item in group.children(value_type="SCOORD3D") for r in _spatial(item)]
        segments = [r for item in group.children(_SEGMENT, _SEGMENT_FRAME) for r in self._segments(item)]
        found = {"planar_regions": planar, "spatial_regions": space, "segments": segments}
        return made | {name: value for name, value in found.items() if value}

    def _planar(self, item: ContentItem) -> Iterator[Json]:
        """A SCOORD; the points of a MULTIPOINT one by one, which FHIR R5 has no other word for."""
        for source in item.children(value_type="IMAGE"):
            shape = item.graphic_type.lower()
            places = [[p] for p in item.points(2)] if shape == "multipoint" else [item.points(2)]
            image = self._image(source)
            for points in places:
                yield {"image": image, "shape": "point" if shape == "multipoint" else shape, "points": points}

    def _segments(self, item: ContentItem) -> Iterator[Json]:
        uid, _, numbers = item.instance
        for number in numbers:
            yield {"series_instance_uid": self._series(uid), "sop_instance_uid": uid, "number": number}

    def _images(self, group: ContentItem) -> Iterator[Json]:
        """Images that the group names besides those of its regions."""
        for item in group.children(value_type="IMAGE"):
            if item.name not in (_SEGMENT, _SEGMENT_FRAME):
                yield self._image(item)

    def _image(self, item: ContentItem) -> Json:
        uid, frames, _ = item.instance
        return {"series_instance_uid": self._series(uid), "sop_instance_uid": uid, "frames": frames}

    def _series(self, sop_instance_uid: str) -> str:
        found = self._series_of.get(sop_instance_uid)
        if not found:
            reason = "is not among the evidence of the document, so that its series is not known"
            raise RefusedResult((Refusal("ReferencedSOPInstanceUID", reason),))
        return found

    @staticmethod
    def _coded(item: ContentItem, name: str) -> Json | None:
        child = item.child(name, value_type="CODE")
        return child.code if child else None


def _spatial(item: ContentItem) -> Iterator[Json]:
    frame, shape = item.frame_of_reference_uid, item.graphic_type.lower()
    yield {"frame_of_reference_uid": frame, "shape": shape, "points": item.points(3)}


def _said(item: ContentItem) -> Json:
    """What an evaluation says: presence by SNOMED CT's codes, else a class, or words."""
    if item.value_type == "TEXT":
        return {"text": item.words}
    code = item.code
    known = _PRESENCE.get(code["code"]) if code and code["scheme"] == "SCT" else None
    return {"presence": known} if known else {"classification": code}


def _presence(group: ContentItem) -> str:
    said = (c["code"] for i in group.children(value_type="CODE") if i.name not in _NOT_EVALUATED and (c := i.code))
    found = {_PRESENCE[code] for code in said if code in _PRESENCE}
    return "undetermined" if len(found) > 1 else next(iter(found), "present")


def _code(code: str, display: str) -> Json:
    return {"scheme": "DCM", "code": code, "display": display}
