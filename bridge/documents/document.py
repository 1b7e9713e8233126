"""One document of a study, opened, with what decides what it is in FHIR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from pydicom.dataset import Dataset

from bridge.errors import InvalidDicomValue, InvalidFile
from bridge.findings.part10 import opened
from bridge.findings.sr_tree import text
from bridge.model import InstanceName, KeptDocument, WadoEndpoint
from bridge.translate.dates import fhir_date_time
from bridge.translate.site import Site


@dataclass(frozen=True)
class Context:
    """What of the configuration decides; `order` source names by authority, `endpoints` source → where to fetch."""

    site: Site
    order: Sequence[str] = ()
    endpoints: Mapping[str, WadoEndpoint] | None = None

    def rank(self, source: str) -> tuple[int, str]:
        return (self.order.index(source) if source in self.order else len(self.order)), source


@dataclass(frozen=True)
class Document:
    """`address` is where readers fetch it by WADO-RS, "" where nobody can; `reviews` of the result that it is."""

    source: str
    name: InstanceName
    dataset: Dataset
    address: str
    reviews: tuple[bytes, ...]

    @property
    def uid(self) -> str:
        return self.name.sop_instance_uid

    @property
    def sop_class(self) -> str:
        return text(self.dataset, "SOPClassUID")

    @property
    def verified(self) -> bool:
        """PS3.3 C.17.2 VerificationFlag, also of encapsulated documents (C.24.2)."""
        return text(self.dataset, "VerificationFlag") == "VERIFIED"

    def content_time(self, zone: tzinfo | None) -> str:
        """When its content was made: ContentDate and ContentTime as FHIR dateTime; "" when that is not known."""
        return moment(self.dataset, text(self.dataset, "ContentDate"), text(self.dataset, "ContentTime"), zone)


def documents_of(kept: Iterable[KeptDocument], context: Context) -> Iterator[Document]:
    """Those that are held, each once, by UID: where several sources hold one, the first of them in authority's."""
    first: dict[str, KeptDocument] = {}
    for one in sorted(kept, key=lambda one: context.rank(one.source)):
        if one.content is not None:
            first.setdefault(one.name.sop_instance_uid, one)
    for _, one in sorted(first.items()):
        try:
            found = opened(one.content or b"")
        except InvalidFile:
            continue  # kept by a version that could read it
        yield Document(one.source, one.name, found, _address(one, context), one.reviews)


def moment(dataset: Dataset, da: str, tm: str, zone: tzinfo | None) -> str:
    """A date and a time of a document as FHIR dateTime; "" when it is none that can be used."""
    try:
        return fhir_date_time(da, tm, text(dataset, "TimezoneOffsetFromUTC"), zone, "ContentDate") or ""
    except InvalidDicomValue:
        return ""


def date_time(dataset: Dataset, keyword: str, zone: tzinfo | None) -> str:
    """A DT attribute of an item (PS3.5 6.2) as FHIR dateTime; "" as `moment`."""
    said: Any = text(dataset, keyword)
    stamp, offset = said, ""
    for sign in "+-":
        if sign in said:
            stamp, _, rest = said.partition(sign)
            offset = sign + rest
    try:
        return fhir_date_time(stamp[:8], stamp[8:], offset, zone, keyword) or ""
    except InvalidDicomValue:
        return ""


def _address(one: KeptDocument, context: Context) -> str:
    endpoint = (context.endpoints or {}).get(one.source)
    if endpoint is None:
        return ""
    name = one.name
    series = f"studies/{name.study_instance_uid}/series/{name.series_instance_uid}"
    return f"{endpoint.address}/{series}/instances/{name.sop_instance_uid}"
