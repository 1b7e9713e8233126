"""The facts of the synthetic hospital: who is ill with what, what was given, imaged and reported. Pure and seeded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from hospital.codes import (
    DISEASES,
    DRUGS,
    ICDO,
    IMAGING,
    LABS,
    OSTEOSARCOMA,
    OSTEOSARCOMA_DRUGS,
    OSTEOSARCOMA_ICDO,
    SCT,
    WESTERN,
    WORLD,
    Disease,
    Name,
)

ISSUER_OID = "2.25.195103518341247712349012873645091234567"
LATEST_AGE = 95


@dataclass(frozen=True)
class PatientRecord:
    """One person. `mrn` is PatientID and the identifier's value; gender M, F or O."""

    mrn: str
    name: Name
    gender: str
    birth_date: date
    deceased: date | None


@dataclass(frozen=True)
class ConditionRecord:
    """One diagnosis; `onset` may be partial (YYYY) or empty, then `recorded` counts."""

    id: str
    mrn: str
    system: str
    code: str
    display: str
    onset: str
    recorded: date
    verification: str


@dataclass(frozen=True)
class MedicationRecord:
    """One prescription."""

    id: str
    mrn: str
    code: str
    status: str
    intent: str
    authored: date


@dataclass(frozen=True)
class LabRecord:
    """One measured value."""

    id: str
    mrn: str
    code: str
    display: str
    value: float
    unit: str
    day: date


@dataclass(frozen=True)
class StudyRecord:
    """One imaging study; `kind` a key of IMAGING; `series` numbers of images; `archived` False: reported, not kept."""

    uid: str
    mrn: str
    kind: str
    day: date
    time: str
    accession: str
    series: tuple[int, ...]
    report: str
    """How its report names it: "uid", "accession", or "" for no report."""
    report_status: str
    archived: bool


@dataclass(frozen=True)
class Hospital:
    """All facts, in a fixed order."""

    today: date
    seed: int
    patients: tuple[PatientRecord, ...]
    conditions: tuple[ConditionRecord, ...]
    medications: tuple[MedicationRecord, ...]
    labs: tuple[LabRecord, ...]
    studies: tuple[StudyRecord, ...]


def years_before(day: date, years: int) -> date:
    """The same day so many years ago; 29 February becomes 28."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


def uid(seed: int, *parts: object) -> str:
    """A UID from a seed and a name: 2.25 and a 120-bit number (PS3.5 B.2)."""
    digest = hashlib.sha256("|".join(map(str, (seed, *parts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


@dataclass(frozen=True)
class _Case:
    """One osteosarcoma patient: how old, how the diagnosis is written, and whether the founding question finds it.

    Result  `age` in years and `age_days` on top; `onset_days` before today; `how` a variant of the coding
    """

    age: int
    age_days: int
    onset_days: int
    how: str = ""


_CASES = (
    _Case(62, 40, 90), _Case(67, 200, 400), _Case(71, 3, 650), _Case(58, 300, 30), _Case(49, 100, 200, "icdo"),
    _Case(46, 10, 500), _Case(80, 0, 700, "recorded only"), _Case(45, 1, 300), _Case(66, 77, 0), _Case(74, 12, 729),
    _Case(45, 0, 120), _Case(44, 364, 120), _Case(44, 100, 60), _Case(17, 20, 150), _Case(15, 200, 420),
    _Case(19, 5, 800), _Case(13, 77, 90), _Case(69, 30, 900), _Case(64, 50, 1500), _Case(55, 90, 733),
    _Case(61, 61, 200, "refuted"), _Case(70, 9, 100, "entered-in-error"), _Case(77, 13, 1200, "year only"),
    _Case(22, 160, 60),
)  # fmt: skip


def plan(patients: int, seed: int, today: date) -> Hospital:
    """The hospital of a seed, seen from `today`: at least as many patients as there are osteosarcoma cases."""
    planner = _Planner(seed, today)
    for number in range(max(patients, len(_CASES))):
        planner.patient(number)
    return planner.hospital()


class _Planner:
    def __init__(self, seed: int, today: date) -> None:
        self._seed, self._today, self._random = seed, today, Random(seed)  # noqa: S311  (synthetic data)
        self._patients: list[PatientRecord] = []
        self._conditions: list[ConditionRecord] = []
        self._medications: list[MedicationRecord] = []
        self._labs: list[LabRecord] = []
        self._studies: list[StudyRecord] = []

    def hospital(self) -> Hospital:
        return Hospital(
            self._today,
            self._seed,
            tuple(self._patients),
            tuple(self._conditions),
            tuple(self._medications),
            tuple(self._labs),
            tuple(self._studies),
        )

    def patient(self, number: int) -> None:
        case = _CASES[number] if number < len(_CASES) else None
        person = self._person(number, case)
        self._patients.append(person)
        if case is not None:
            self._osteosarcoma(person, case)
        for disease in self._diseases(person):
            self._disease(person, disease)
        for code, display, low, high, unit in LABS:
            for _ in range(self._random.choice((0, 1, 1, 2))):
                value = round(self._random.uniform(low, high), 1)
                day = self._recent(person, 900)
                self._labs.append(
                    LabRecord(f"obs-{len(self._labs) + 1:06}", person.mrn, code, display, value, unit, day)
                )

    def _person(self, number: int, case: _Case | None) -> PatientRecord:
        random = self._random
        if number % 12 == 5:
            name, gender = WORLD[number // 12 % len(WORLD)]
        else:
            family, given, gender = WESTERN[random.randrange(len(WESTERN))]
            name = Name(f"{family}-Test", f"{given} {number:03}")
        if number % 40 == 17:
            gender = "O"
        if case is not None:
            born = years_before(self._today, case.age) - timedelta(days=case.age_days)
        else:
            age = min(
                LATEST_AGE, int(random.choice((random.uniform(1, 40), random.gauss(62, 15), random.gauss(70, 12))))
            )
            born = years_before(self._today, max(age, 1)) - timedelta(days=random.randrange(365))
        deceased = self._today - timedelta(days=random.randrange(1, 300)) if number % 23 == 22 else None
        return PatientRecord(f"MRN{number + 1:06}", name, gender, born, deceased)

    def _osteosarcoma(self, person: PatientRecord, case: _Case) -> None:
        onset = self._today - timedelta(days=case.onset_days)
        system, (code, display) = (ICDO, OSTEOSARCOMA_ICDO) if case.how == "icdo" else (SCT, OSTEOSARCOMA)
        written = {"recorded only": "", "year only": str(onset.year)}.get(case.how, onset.isoformat())
        verification = case.how if case.how in ("refuted", "entered-in-error") else "confirmed"
        self._condition(person, system, code, display, written, onset, verification)
        for drug in OSTEOSARCOMA_DRUGS[: self._random.randrange(2, 7)]:
            self._medication(person, drug, onset + timedelta(days=14))
        for kind, after in (("MR knee", 2), ("CT knee", 5), ("CT chest", 7), ("CT chest", 95), ("CR chest", 100)):
            self._study(person, kind, min(onset + timedelta(days=after), self._today))

    def _diseases(self, person: PatientRecord) -> list[Disease]:
        age = (self._today - person.birth_date).days // 365
        fitting = [d for d in DISEASES if d.ages[0] <= age <= d.ages[1]]
        count = min(len(fitting), self._random.choice((0, 1, 1, 2, 2, 3)))
        chosen: dict[str, Disease] = {}
        while len(chosen) < count:
            one = self._random.choices(fitting, [d.weight for d in fitting])[0]
            chosen[one.code] = one
        return list(chosen.values())

    def _disease(self, person: PatientRecord, disease: Disease) -> None:
        onset = self._recent(person, 2500)
        self._condition(person, SCT, disease.code, disease.display, onset.isoformat(), onset, "confirmed")
        for drug in disease.drugs:
            if self._random.random() < 0.8:
                self._medication(person, drug, onset)
        for kind in disease.imaging:
            if self._random.random() < 0.7:
                self._study(person, kind, min(onset + timedelta(days=self._random.randrange(0, 60)), self._today))

    def _recent(self, person: PatientRecord, days: int) -> date:
        return max(person.birth_date, self._today - timedelta(days=self._random.randrange(1, days)))

    def _condition(
        self, person: PatientRecord, system: str, code: str, display: str, onset: str, recorded: date, verification: str
    ) -> None:
        id_ = f"cond-{len(self._conditions) + 1:06}"
        self._conditions.append(ConditionRecord(id_, person.mrn, system, code, display, onset, recorded, verification))

    def _medication(self, person: PatientRecord, drug: str, day: date) -> None:
        number = len(self._medications) + 1
        status = {7: "cancelled", 13: "entered-in-error", 3: "stopped"}.get(number % 17, "active")
        intent = "plan" if number % 29 == 0 else "order"
        if drug not in DRUGS:
            raise KeyError(drug)
        self._medications.append(
            MedicationRecord(f"med-{number:06}", person.mrn, drug, status, intent, min(day, self._today))
        )

    def _study(self, person: PatientRecord, kind: str, day: date) -> None:
        number, random = len(self._studies) + 1, self._random
        per_modality = {"CT": (12, 8), "MR": (8, 8), "CR": (2,), "US": (4,)}[IMAGING[kind].modality]
        series = per_modality[: 1 if number % 3 else 2]
        report = {0: "", 1: "accession"}.get(number % 7, "uid")
        self._studies.append(
            StudyRecord(
                uid(self._seed, "study", number),
                person.mrn,
                kind,
                day,
                f"{random.randrange(7, 19):02}{random.randrange(60):02}{random.randrange(60):02}",
                f"A{number:07}",
                series,
                report,
                "preliminary" if number % 19 == 4 else "final",
                archived=number % 31 != 30,
            )
        )


def founding_answer(hospital: Hospital) -> tuple[tuple[str, str], ...]:
    """(MRN, Study Instance UID) that the founding question must find, worked out from the facts alone.

    Older than 45: the 45th birthday lies before today. Diagnosis in the last 2 years: onset, its earliest day if
    partial, else the recorded date, from today 2 years ago to today; not refuted, not entered in error.
    """
    old_enough = {p.mrn for p in hospital.patients if p.birth_date < years_before(hospital.today, 45)}
    since = years_before(hospital.today, 2).isoformat()
    ill = {
        c.mrn
        for c in hospital.conditions
        if c.code in (OSTEOSARCOMA[0], OSTEOSARCOMA_ICDO[0])
        and c.verification not in ("refuted", "entered-in-error")
        and since <= _earliest(c) <= hospital.today.isoformat()
    }
    return tuple(
        sorted(
            (s.mrn, s.uid)
            for s in hospital.studies
            if s.archived and s.mrn in old_enough & ill and IMAGING[s.kind].modality == "CT"
        )
    )


def _earliest(condition: ConditionRecord) -> str:
    onset = condition.onset or condition.recorded.isoformat()
    return onset + "-01-01"[: 10 - len(onset)] if len(onset) < 10 else onset
