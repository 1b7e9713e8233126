"""Who wrote a document and who verified it. Source: PS3.3 C.17.2 SR Document General, Table 10-1."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from bridge.findings.sr_tree import ContentItem, coded, text
from bridge.model import Resource
from bridge.translate.codes import CodeTables
from bridge.translate.headers import PersonName
from bridge.translate.names import display

_PERSON_OBSERVER = "121008 DCM"


@dataclass(frozen=True)
class Verifier:
    """A verifying observer: the name as people write it, the id by which an EHR knows the person, the item itself."""

    name: str
    identifier_system: str
    identifier_value: str
    item: Dataset

    @property
    def reference(self) -> Resource:
        made: Resource = {"type": "Practitioner"}
        if self.identifier_value:
            made["identifier"] = {"system": self.identifier_system, "value": self.identifier_value}
        return made | {"display": self.name}


def verifiers(document: Dataset, tables: CodeTables) -> list[Verifier]:
    """The verifying observers that have a name, in their order."""
    found = []
    for item in document.get("VerifyingObserverSequence") or ():
        name = person(item, "VerifyingObserverName")
        code = coded(item, "VerifyingObserverIdentificationCodeSequence")
        system = tables.coding_scheme.get(code["scheme"], "") if code else ""
        if name:
            found.append(Verifier(name, system, code["code"] if code and system else "", item))
    return found


def authors(document: Dataset) -> list[Resource]:
    """People that the document names as its authors, each once."""
    names = [person(item, "PersonName") for item in document.get("AuthorObserverSequence") or ()]
    names += [_shown(item.person_name) for item in ContentItem(document).children(_PERSON_OBSERVER)]
    names.append(person(document, "ContentCreatorName"))
    return [{"type": "Practitioner", "display": name} for name in dict.fromkeys(filter(None, names))]


def person(dataset: Dataset, keyword: str) -> str:
    """A person name of a data set as people write it; "" when there is none."""
    return _shown(text(dataset, keyword))


def _shown(name: str) -> str:
    return display(PersonName.parse("".join(c for c in name if c.isprintable())))[:200].strip()
