"""Lists that are whole or an error, whatever an archive ignores, caps, repeats or changes meanwhile."""

from __future__ import annotations

import random

import httpx
import pytest

from bridge.errors import SourceUnavailable
from tests.dicomweb_fake import FakeDicomWeb, Quirks, connect
from tests.feed import follow


def filled(quirks: Quirks, studies: int, days: int = 20) -> FakeDicomWeb:
    fake = FakeDicomWeb(quirks)
    for n in range(studies):
        fake.add(f"1.2.3.{n}", f"202402{n % days + 1:02d}", instances=n % 3 + 1)
    return fake


def listed(fake: FakeDicomWeb, **options: int) -> dict[str, int]:
    source = connect(fake, **options)
    try:
        return dict(source.inventory())
    finally:
        source.close()


TRUE = [
    Quirks(),
    Quirks(newest_first=True, warns=True),
    Quirks(cap=100),
    Quirks(cap=12),
    Quirks(cap=1),
    Quirks(cap=7, ignores_limit=True, duplicates=True),
    Quirks(ignores_limit=True),
    Quirks(ignores_offset=True),
    Quirks(ignores_offset=True, warns=True, cap=60),
    Quirks(ignores_offset=True, ignores_limit=True),
    Quirks(ignores_offset=True, ignores_limit=True, ignores_dates=True, omits_dates=True),
    Quirks(ignores_offset=True, cap=60),
    Quirks(too_broad=30),
    Quirks(too_broad=30, none_is=200, cap=7),
    Quirks(ignores_offset=True, too_broad=30, none_is=404),
    Quirks(ignores_dates=True, cap=50),
    Quirks(omits_dates=True, none_is=404),
    Quirks(duplicates=True),
    Quirks(refuses_fields=True, accepts="application/json"),
    Quirks(omits_counts=True),
    Quirks(omits_counts=True, omits_series_counts=True, ignores_offset=True),
]


@pytest.mark.parametrize("quirks", TRUE, ids=repr)
@pytest.mark.parametrize("page_size", [25, 200])
def test_every_study_is_listed(quirks: Quirks, page_size: int) -> None:
    fake = filled(quirks, 131)
    assert listed(fake, page_size=page_size) == fake.truth()


@pytest.mark.parametrize("quirks", TRUE, ids=repr)
def test_every_study_is_named(quirks: Quirks) -> None:
    fake = filled(quirks, 131)
    source = connect(fake, page_size=40, lookback_days=40)
    assert follow(source)[0] == set(fake.held)
    source.close()


@pytest.mark.parametrize(
    ("quirks", "problem"),
    [
        (Quirks(ignores_offset=True, cap=50), "more studies of one day than it lists at once"),
        (Quirks(ignores_offset=True, ignores_limit=True, cap=64), "more studies of one day than it lists at once"),
        (Quirks(ignores_offset=True, warns=True, cap=30), "more studies of one day than it lists at once"),
        (Quirks(ignores_offset=True, ignores_dates=True, cap=100), "nor search by StudyDate"),
        (Quirks(too_broad=30), "HTTP 413"),
    ],
    ids=repr,
)
def test_a_part_is_never_taken_for_the_whole(quirks: Quirks, problem: str) -> None:
    fake = filled(quirks, 280, days=2)
    with pytest.raises(SourceUnavailable, match=problem):
        listed(fake)
    source = connect(fake)
    with pytest.raises(SourceUnavailable, match=problem):
        follow(source)
    source.close()


def test_a_limit_that_is_refused_spoils_no_later_search() -> None:
    fake = filled(Quirks(ignores_offset=True, largest_limit=60), 150, days=2)
    source = connect(fake, page_size=60)
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="more studies of one day than it lists at once"):
            list(source.inventory())
    for n in range(70):
        fake.delete(f"1.2.3.{n}")
    assert dict(source.inventory()) == fake.truth()
    source.close()


def test_an_archive_that_never_keeps_an_order_is_not_believed_to_page() -> None:
    fake = filled(Quirks(shuffles=True, cap=60), 90, days=3)
    assert listed(fake) == fake.truth()


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_what_others_do_meanwhile_hides_no_study_that_was_there_all_along(newest_first: bool, seed: int) -> None:
    fake, chance = filled(Quirks(newest_first=newest_first), 300), random.Random(seed)
    staying = {f"1.2.3.{n}" for n in range(0, 300, 2)}
    going = [f"1.2.3.{n}" for n in range(1, 300, 2)]
    chance.shuffle(going)

    def meanwhile() -> None:
        for _ in range(chance.randrange(6)):
            if going:
                fake.delete(going.pop())
            fake.add(f"1.2.4.{len(fake.requests)}.{chance.randrange(1000)}", "20240301")

    fake.between = meanwhile
    assert staying <= listed(fake, page_size=40).keys()


def test_a_list_that_moves_too_fast_is_read_again() -> None:
    fake = filled(Quirks(), 120)
    doomed = iter([f"1.2.3.{n}" for n in range(30)])
    fake.between = lambda: [fake.delete(uid) for uid in doomed] and None
    found = listed(fake, page_size=50)
    assert fake.truth().items() <= found.items()


def test_a_list_that_moves_by_just_one_page_does_not_look_like_its_end() -> None:
    fake = filled(Quirks(newest_first=True), 300)
    staying = set(fake.held)

    def meanwhile() -> None:
        if len(fake.requests) == 3:
            for n in range(20):
                fake.add(f"1.2.4.{n}")

    fake.between = meanwhile
    assert staying <= listed(fake, page_size=40).keys()


def test_an_archive_that_does_not_list_everything_at_once_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    fake = filled(Quirks(too_broad=60), 131)
    fake.add("1.2.4", None)
    source = connect(fake)
    for _ in range(2):
        assert "1.2.4" not in dict(source.inventory())
    source.close()
    assert [r.message for r in caplog.records] == [
        "source pacs: the archive does not list everything at once: some studies without StudyDate may be missed"
    ]


def test_a_warning_that_nothing_is_left_is_no_warning() -> None:
    fake = filled(Quirks(), 3)
    source = connect(fake)
    answer = fake.handle_request

    class Warned(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = answer(request)
            response.headers["Warning"] = "299 x: There are 0 additional results that can be requested"
            return response

    source.close()
    source = connect(Warned())
    assert dict(source.inventory()) == fake.truth()
    source.close()


def test_an_archive_that_makes_up_studies_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sources.qido_pages.MOST_ITEMS", 500)
    fake = filled(Quirks(cap=40), 40)
    numbers = iter(range(40, 100_000))
    fake.between = lambda: [fake.add(f"1.2.3.{next(numbers)}") for _ in range(40)] and None
    with pytest.raises(SourceUnavailable, match="more items than an archive can hold"):
        listed(fake)


@pytest.mark.parametrize("none_is", [200, 204, 404])
def test_days_without_studies_are_no_error(none_is: int) -> None:
    fake = filled(Quirks(none_is=none_is), 1)
    source = connect(fake)
    assert follow(source)[0] == {"1.2.3.0"}
    source.close()


def test_a_search_that_is_not_there_is_not_an_empty_archive() -> None:
    source = connect(FakeDicomWeb(Quirks(none_is=404)))
    for step in (lambda: source.changes(None), lambda: list(source.inventory()), lambda: source.count(["1.2.3"])):
        with pytest.raises(SourceUnavailable, match="HTTP 404 for /studies"):
            step()
    source.close()
