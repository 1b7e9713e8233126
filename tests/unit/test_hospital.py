from __future__ import annotations

import hashlib
from collections import Counter
from datetime import date
from pathlib import Path

import orjson
import pytest
from fhir.resources.R4B import get_fhir_model_class

from bridge.sources.part10 import read_headers
from hospital import founding_answer, generate, plan
from hospital.clinical import resources

TODAY = date(2026, 11, 24)


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        generate(tmp_path / name, patients=24, today=TODAY)
    generate(tmp_path / "one", patients=24, today=TODAY)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_every_clinical_resource_is_valid_labelled_and_refers_to_what_exists() -> None:
    hospital = plan(40, 1, TODAY)
    made = {kind: list(found) for kind, found in resources(hospital).items()}
    patients = {f"Patient/{p['id']}" for p in made["Patient"]}
    assert set(made) == {
        "Patient", "Condition", "MedicationRequest", "Encounter", "Observation", "Procedure", "DiagnosticReport",
    }  # fmt: skip
    for kind, found in made.items():
        model = get_fhir_model_class(kind)
        for resource in found:
            model.model_validate(orjson.loads(orjson.dumps(resource)))
            assert resource["meta"]["security"][0]["code"] == "HTEST"
            if kind != "Patient":
                assert resource["subject"]["reference"] in patients


def test_the_images_belong_to_the_clinical_patients_and_say_they_are_synthetic(tmp_path: Path) -> None:
    summary = generate(tmp_path, patients=60, today=TODAY)
    lines = (tmp_path / "clinical" / "Patient.ndjson").read_bytes().splitlines()
    identifiers = {(i["system"], i["value"]) for p in map(orjson.loads, lines) for i in p["identifier"]}
    modalities: Counter[str] = Counter()
    files = list((tmp_path / "dicom").rglob("*.dcm"))
    for file in files:
        headers = read_headers(file)
        issuer = headers.item("IssuerOfPatientIDQualifiersSequence").text("UniversalEntityID")
        assert (f"urn:oid:{issuer}", headers.text("PatientID")) in identifiers
        modalities[headers.text("Modality")] += 1
        assert b"SYNTHETIC DATA" in file.read_bytes()[:4000]
    assert set(modalities) == {"CT", "MR", "CR", "US"}
    assert len(files) == summary.instances


def test_names_in_other_scripts_survive_their_character_sets(tmp_path: Path) -> None:
    generate(tmp_path, patients=110, today=TODAY)
    names = {read_headers(f).name("PatientName") for f in (tmp_path / "dicom").rglob("image001.dcm")}
    shown = {n.alphabetic for n in names} | {n.ideographic for n in names}
    assert {"Müller-Test^Jürgen", "試験山田^太郎", "洪試驗^吉洞", "王测试^小东"} <= shown


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_expected_answer_has_qualifying_patients_and_near_misses(seed: int) -> None:
    hospital = plan(40, seed, TODAY)
    found = founding_answer(hospital)
    patients = {mrn for mrn, _ in found}
    assert len(patients) >= 5
    sick = {c.mrn for c in hospital.conditions if c.code in ("307576001", "9180/3")}
    assert len(sick - patients) >= 10
