from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from bridge.errors import StateUnavailable
from bridge.model import Rejection
from bridge.ports import ChangePage
from bridge.sources.availability import INSTANCE_AVAILABILITY, MAXIMUM_TITLES, Availability
from bridge.sources.services import CommandField, Request, Response, Status
from tests.builders import STUDY
from tests.unit.test_procedure_step import item


def instance(ae_title: Any = "PACS", availability: str = "ONLINE") -> Dataset:
    return item(
        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        ReferencedSOPInstanceUID="1.2.3.4",
        InstanceAvailability=availability,
        RetrieveAETitle=ae_title,
    )


def notification(*instances: Dataset, **attributes: Any) -> Dataset:
    series = item(SeriesInstanceUID="1.2.3", ReferencedSOPSequence=list(instances or (instance(),)))
    values = {"StudyInstanceUID": STUDY, "ReferencedSeriesSequence": [series]} | attributes
    return item(**{k: v for k, v in values.items() if v is not None})


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known, self.hints = {"PACS", "VNA"}, list[tuple[str, str]]()
        self.rejected, self.accepted = list[Rejection](), list[str]()
        self.down = False
        self.restart()

    def restart(self) -> None:
        self.service = Availability(self.folder, self.hint, self.store)

    def hint(self, ae_title: str, study: str) -> bool:
        if self.down:
            raise StateUnavailable("state: the database cannot answer now")
        if ae_title in self.known:
            self.hints.append((ae_title, study))
        return ae_title in self.known

    def store(self, page: ChangePage) -> None:
        self.rejected += page.rejected
        self.accepted += page.accepted

    def send(self, data_set: Dataset | None, field: CommandField = CommandField.N_CREATE) -> Response:
        return self.service.handle(
            Request(field, INSTANCE_AVAILABILITY, "1.2.3.9", "RIS", "BRIDGE", "127.0.0.1", data_set=data_set)
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield Rig(tmp_path)


def test_a_notification_is_a_hint_for_every_archive_it_names(rig: Rig) -> None:
    response = rig.send(notification(instance("PACS"), instance(["VNA", "PACS"])))
    assert (response.status, response.sop_instance_uid) == (0, "1.2.3.9")
    assert rig.hints == [("PACS", STUDY), ("VNA", STUDY)]


@pytest.mark.parametrize("availability", ["ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE"])
def test_whatever_availability_is_claimed_the_archive_is_asked(rig: Rig, availability: str) -> None:
    assert rig.send(notification(instance(availability=availability))).status == 0
    assert rig.hints == [("PACS", STUDY)]


def test_an_item_without_an_ae_title_stops_no_other(rig: Rig) -> None:
    assert rig.send(notification(Dataset(), instance(""), instance())).status == 0
    assert rig.hints == [("PACS", STUDY)]


def test_a_title_that_no_source_has_is_shown_once_with_what_to_do(rig: Rig) -> None:
    for study in ("1.2.1", "1.2.2"):
        assert rig.send(notification(instance("ELSEWHERE"), instance(), StudyInstanceUID=study)).status == 0
    (rejection,) = rig.rejected
    assert (rejection.key, rejection.evidence["ae_title"]) == ("availability/ELSEWHERE", "ELSEWHERE")
    assert rig.hints == [("PACS", "1.2.1"), ("PACS", "1.2.2")]
    rig.known.add("ELSEWHERE")
    rig.restart()
    rig.send(notification(instance("ELSEWHERE")))
    assert "availability/ELSEWHERE" in rig.accepted


def test_a_flood_of_titles_fills_nothing(rig: Rig) -> None:
    for n in range(MAXIMUM_TITLES + 20):
        assert rig.send(notification(instance(f"T{n}"))).status == 0
    assert len(rig.rejected) == MAXIMUM_TITLES
    many = [instance(f"T{n}") for n in range(MAXIMUM_TITLES + 1)]
    assert rig.send(notification(*many)).status == Status.RESOURCE_LIMITATION


def test_a_state_that_cannot_answer_gets_its_hints_later_even_after_a_crash(rig: Rig) -> None:
    rig.down = True
    assert rig.send(notification()).status == 0
    rig.restart()
    rig.service.catch_up()
    assert rig.hints == []
    rig.down = False
    rig.service.catch_up()
    rig.service.catch_up()
    assert rig.hints == [("PACS", STUDY)]


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"StudyInstanceUID": None}, 0x0120),
        ({"StudyInstanceUID": ""}, 0x0121),
        ({"StudyInstanceUID": "../../x"}, 0x0106),
        ({"ReferencedSeriesSequence": None}, 0x0120),
        ({"ReferencedSeriesSequence": []}, 0x0121),
        ({"ReferencedSeriesSequence": [Dataset()]}, 0x0120),
    ],
)
def test_a_malformed_notification_is_refused(rig: Rig, attributes: dict[str, Any], status: int) -> None:
    assert rig.send(notification(**attributes)).status == status
    assert rig.hints == rig.rejected == []


@pytest.mark.filterwarnings("ignore:.*")
def test_what_is_no_ae_title_is_refused(rig: Rig) -> None:
    for title in ("A" * 17, "É", "A\tB"):
        assert rig.send(notification(instance(title))).status == Status.INVALID_ATTRIBUTE_VALUE
    assert rig.rejected == []


def test_nothing_but_a_creation_is_taken(rig: Rig) -> None:
    assert rig.send(notification(), CommandField.N_SET).status == Status.UNRECOGNIZED_OPERATION
    assert rig.send(None).status == Status.MISSING_ATTRIBUTE
