"""Random resources that have FHIR's shape, and random views over them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cohort.elements import PRIMITIVES, elements

RESOURCES = ("Patient", "Observation", "QuestionnaireResponse", "ImagingStudy")
USED = {
    "Patient": ("id", "active", "birthDate", "name", "contact", "deceased", "multipleBirth", "link", "maritalStatus"),
    "Observation": ("id", "status", "code", "subject", "value", "component", "effective", "hasMember", "category"),
    "QuestionnaireResponse": ("id", "item", "authored", "subject"),
    "ImagingStudy": ("id", "started", "series", "modality", "numberOfSeries", "basedOn"),
    "HumanName": ("use", "family", "given", "period"), "PatientContact": ("name", "telecom", "gender"),
    "ContactPoint": ("system", "value", "rank"), "PatientLink": ("other", "type"), "Period": ("start", "end"),
    "CodeableConcept": ("coding", "text"), "Coding": ("system", "code", "userSelected"), "Reference": ("reference",),
    "Quantity": ("value", "unit"), "Range": ("low", "high"), "ObservationComponent": ("code", "value"),
    "QuestionnaireResponseItem": ("linkId", "text", "item", "answer"),
    "QuestionnaireResponseItemAnswer": ("value", "item"),
    "ImagingStudySeries": ("uid", "number", "modality", "instance", "started"),
    "ImagingStudySeriesInstance": ("uid", "number", "title"),
}  # fmt: skip
CHOICES = (
    "boolean",
    "integer",
    "decimal",
    "string",
    "dateTime",
    "time",
    "Quantity",
    "Range",
    "CodeableConcept",
    "Coding",
)
REFERENCES = (
    "Patient/a", "Patient/b/_history/3", "https://fhir.example/r4/Patient/a", "https://x/Observation/o.1/_history/1",
    "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0", "#contained", "Patient?identifier=1", "Group/Patient/a",
    "patient/a", "Patient/", "",
)  # fmt: skip
TEXTS = ("a", "b", "official", "A'b", "ü", "", "a b", "true", "1")
PRIMITIVE_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-3, 30), "positiveInt": st.integers(1, 3), "unsignedInt": st.integers(0, 3),
    "decimal": st.one_of(st.integers(-2, 3), st.sampled_from([0.5, 1.25, -2.5, 1.0, 100.125, 0.1, 0.2])),
    "date": st.sampled_from(["1980", "1980-02", "1981-02", "2000-02-29", "1980-12-31"]),
    "dateTime": st.sampled_from(["1900-02", "2024-02-29", "2024-02-29T10:00:00Z", "2024-02-29T10:00:00.5+02:00"]),
    "time": st.sampled_from(["10:00", "10:00:00", "10:00:00.25"]),
    "id": st.sampled_from(["a", "b", "o.1"]),
}  # fmt: skip


def resources(type_: str) -> st.SearchStrategy[dict[str, Any]]:
    return objects(type_, 4).map(lambda found: {"resourceType": type_, **found})


def objects(type_: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    choices: list[dict[str, st.SearchStrategy[Any]]] = []
    for name in USED[type_]:
        element = elements(type_)[name]
        if element.choice:
            options = [t for t in CHOICES if t in element.choice]
            choices.append({name + t[:1].upper() + t[1:]: values(t, False, depth) for t in options})
        elif depth > 0 or element.type in PRIMITIVES:
            fields[name] = values(element.type, element.many, depth)
    if type_ == "Reference":
        fields = {"reference": st.sampled_from(REFERENCES)}
    made: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=fields)
    for choice in choices:
        one = st.one_of(st.just({}), *(st.fixed_dictionaries({key: value}) for key, value in choice.items()))
        made = st.tuples(made, one).map(lambda pair: pair[0] | pair[1])
    return made


def values(type_: str, many: bool, depth: int) -> st.SearchStrategy[Any]:
    if type_ in PRIMITIVES:
        one = PRIMITIVE_VALUES.get(type_, st.sampled_from(TEXTS))
        return st.lists(st.one_of(st.none(), one), max_size=3) if many else one
    one = st.deferred(lambda: objects(type_, depth - 1))
    return st.lists(one, max_size=3) if many else one


@st.composite
def paths(draw: st.DrawFn, type_: str, *, wanted: str) -> tuple[str, str]:
    """(path, its type); wanted: "object" or "value". Ends anywhere if there is none."""
    text, here = "", type_
    for _ in range(4):
        if here in PRIMITIVES:
            break
        name = draw(st.sampled_from(USED[here]))
        element = elements(here)[name]
        step = name
        if element.choice:
            options = [t for t in CHOICES if t in element.choice]
            chosen = draw(st.sampled_from(options))
            step, here = f"{name}.ofType({chosen})", chosen
        else:
            here = element.type
        if draw(st.integers(0, 4)) == 0:
            step += draw(st.sampled_from(["[0]", "[1]", ".first()", ".last()", ".where($this.exists())"]))
        text = f"{text}.{step}" if text else step
        if wanted == "object" and (here not in PRIMITIVES or draw(st.booleans())):
            break
    return text, here


KINDS = ("plain", "plain", "plain", "exists", "count", "compare", "compute", "key", "index", "edge")


@st.composite
def columns(draw: st.DrawFn, type_: str, name: str) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(["plain", "plain", "plain", "exists", "count", "compare", "compute", "key", "index", "edge"])
    )
    path, found = draw(paths(type_, wanted="value"))
    other, _ = draw(paths(type_, wanted="value"))
    literal = draw(st.sampled_from(["'a'", "1", "2.5", "true", "'official'", "-1", "%limit", "%name"]))
    if kind == "plain" and found not in PRIMITIVES:
        path += ".exists()"
    elif kind == "exists":
        path = draw(st.sampled_from([f"{path}.exists()", f"{path}.empty()", f"({path}.exists()).not()"]))
    elif kind == "count":
        path = f"{path}.count()"
    elif kind == "compare":
        symbol = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "and", "or"]))
        path = f"{path} {symbol} {draw(st.sampled_from([literal, other]))}"
    elif kind == "compute":
        path = f"{path} {draw(st.sampled_from('+-*/'))} {draw(st.sampled_from([literal, other]))}"
    elif kind == "key":
        path = draw(
            st.sampled_from(["getResourceKey()", f"{path}.getReferenceKey()", f"{path}.getReferenceKey(Patient)"])
        )
    elif kind == "index":
        path = "%rowIndex"
    elif kind == "edge":
        path = f"{path}.{draw(st.sampled_from(['lowBoundary()', 'highBoundary()', 'join()']))}"
    made: dict[str, Any] = {"name": name, "path": path}
    if draw(st.integers(0, 2)) > 0:
        made["collection"] = True
    return made


@st.composite
def selects(draw: st.DrawFn, type_: str, prefix: str, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    here = type_
    if type_ not in PRIMITIVES and draw(st.integers(0, 3)) > 0:
        way = draw(st.sampled_from(["forEach", "forEachOrNull"]))
        path, here = draw(paths(type_, wanted="object"))
        made[way] = path
        if type_ in ("QuestionnaireResponse", "QuestionnaireResponseItem") and draw(st.booleans()):
            del made[way]
            made["repeat"], here = (
                draw(st.sampled_from([["item"], ["item", "answer.item"]])),
                "QuestionnaireResponseItem",
            )
    if here in PRIMITIVES:
        made["column"] = [{"name": f"{prefix}a", "path": "$this"}, {"name": f"{prefix}b", "path": "%rowIndex"}]
        return made
    made["column"] = [draw(columns(here, f"{prefix}{n}")) for n in range(draw(st.integers(1, 2)))]
    if depth > 0:
        inner = draw(st.integers(0, 2))
        made["select"] = [draw(selects(here, f"{prefix}s{n}_", depth - 1)) for n in range(inner)]
        if draw(st.integers(0, 2)) == 0:
            names = [f"{prefix}u0", f"{prefix}u1"]
            made["unionAll"] = [draw(branches(here, names)) for _ in range(draw(st.integers(1, 3)))]
    return made


@st.composite
def branches(draw: st.DrawFn, type_: str, names: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    here = type_
    if draw(st.booleans()):
        path, here = draw(paths(type_, wanted="object"))
        made[draw(st.sampled_from(["forEach", "forEachOrNull"]))] = path
    if here in PRIMITIVES:
        made["column"] = [{"name": names[0], "path": "%rowIndex"}, {"name": names[1], "path": "$this.exists()"}]
    else:
        path, _ = draw(paths(here, wanted="value"))
        counted = {"name": names[0], "path": f"{path}.count()"}
        made["column"] = [counted, {"name": names[1], "path": f"{path}.exists()"}]
    return made


@st.composite
def views(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A view and resources of its type."""
    type_ = draw(st.sampled_from(RESOURCES))
    view: dict[str, Any] = {
        "resource": type_,
        "constant": [{"name": "limit", "valueInteger": 2}, {"name": "name", "valueString": "a"}],
        "select": [draw(selects(type_, f"c{n}_", 2)) for n in range(draw(st.integers(1, 2)))],
    }
    if draw(st.integers(0, 3)) == 0:
        view["where"] = [{"path": draw(paths(type_, wanted="value"))[0] + ".exists()"}]
    return view, draw(st.lists(resources(type_), min_size=1, max_size=4))
