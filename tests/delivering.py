"""The whole pipeline with a FHIR server at its end, driven by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from bridge.model import Resource
from bridge.ports import ImagingSource, sink_queue
from bridge.sinks.fhir_server import FhirServerPolicy, FhirServerSink
from bridge.state import State
from bridge.translate.identity import Issuers
from tests.builders import a_translator
from tests.contract.fhir_sink import MRN
from tests.fhir_fake import URL, FhirFake
from tests.unit.test_sync import Rig

QUEUE = sink_queue("ehr")


class Delivery(Rig):
    """The rig with one FHIR server instead of sinks that only remember; `source` in place of its two archives."""

    def __init__(self, state: State, server: FhirFake, source: ImagingSource | None = None, **policy: Any) -> None:
        super().__init__(state)
        self.server, self.policy = server, FhirServerPolicy(**policy)
        self.pipeline.sinks = {"ehr": self.sink(server)}
        name = "a" if source is None else source.name
        issuers = Issuers({}, MRN, "http://ris")
        self.pipeline.translator = a_translator((name, "b"), {name: "http://pacs/dw"}, issuers=issuers)
        if source is not None:
            self.pipeline.sources = {name: source}
        self.pipeline.prepare()

    def sink(self, server: FhirFake, name: str = "ehr") -> FhirServerSink:
        return FhirServerSink(
            name, URL, policy=self.policy, transport=server, clock=lambda: self.now, pause=lambda _s: None
        )

    def studies(self, uid: str) -> list[Resource]:
        """What the server has of a study."""
        return self.server.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{uid}")

    def parked(self) -> dict[str, str]:
        """Study → why it is parked."""
        return {i.key: i.error for i in self.state.items(queue=QUEUE, parked=True)}

    def again(self, *uids: str) -> None:
        """The studies are to be delivered once more, as they are."""
        self.state.mark(QUEUE, uids, self.now)
        self.run(5)

    def withdraw(self, uid: str) -> None:
        """No archive holds the study any more."""
        self.a.studies.pop(uid, None)
        self.a.log.append(uid)
        self.run()


def references(content: object) -> Iterator[str]:
    """Every literal reference in a resource."""
    if isinstance(content, dict):
        if isinstance(content.get("reference"), str):
            yield content["reference"]
        for value in content.values():
            yield from references(value)
    elif isinstance(content, list):
        for value in content:
            yield from references(value)


def dangling(server: FhirFake) -> set[str]:
    """References of what is on a server to what is not."""
    kinds = {reference.partition("/")[0] for reference in server.history}
    said = {one for kind in kinds for resource in server.all(kind) for one in references(resource)}
    return {one for one in said if server.read(one) is None}


def entries(content: bytes) -> list[Any]:
    """The entries of a Bundle that is sent; none of anything else."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return []
    return list(body.get("entry", [])) if isinstance(body, dict) and body.get("resourceType") == "Bundle" else []


def counted(server: FhirFake, what: Callable[[str], bool] = lambda _r: True) -> int:
    """How many writes a server was asked for, searches not among them."""
    asked = [r for r in server.requests if re.match("PUT|POST|DELETE", r) and not r.endswith("_search")]
    return sum(map(what, asked))
