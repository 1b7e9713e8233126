"""The images of a study for the model that was called for it: with its token, and nothing else with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from bridge.api import images as images_module
from bridge.api.images import Images, router
from bridge.errors import SourceUnavailable
from bridge.model_calls.token import Tokens
from bridge.sources.file_images import FileImages
from bridge.sources.study_images import StudyImages
from bridge.translate.headers import Headers
from tests.builders import STUDY, a_dataset
from tests.unit.test_fhir_api import TestClient
from tests.wado_fake import WadoFake

NOW = 1_000_000.0


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "key")


class Web:
    """The routes before an archive in memory."""

    def __init__(self, folder: Path, tokens: Tokens) -> None:
        path = folder / "1.dcm"
        a_dataset().save_as(path, enforce_file_format=True)
        self.archive, self.now = WadoFake([path]), NOW
        auth = httpx.BasicAuth("bridge", "secret")
        self.images = StudyImages("pacs", "http://pacs/dw", auth=auth, transport=self.archive)
        self.token = tokens.issue(STUDY, NOW + 60)
        app = FastAPI()
        opened = lambda _study, path, accept: self.images.opened(path, accept)  # noqa: E731
        app.include_router(router(Images(lambda token: tokens.study_of(token, self.now), opened)))
        self.client = TestClient(app, raise_server_exceptions=False)

    def get(self, path: str, token: str | None = None, scheme: str = "Bearer") -> httpx.Response:
        headers = {"Authorization": f"{scheme} {token if token is not None else self.token}", "Accept": "multipart/x"}
        found: httpx.Response = self.client.get(f"/wado-rs/studies/{path}", headers=headers)
        return found


@pytest.fixture
def web(tmp_path: Path, tokens: Tokens) -> Iterator[Web]:
    web = Web(tmp_path, tokens)
    yield web
    web.images.close()


@pytest.mark.parametrize("below", ["", f"/series/{STUDY}.1", f"/series/{STUDY}.1/instances/{STUDY}.1.1"])
def test_a_token_reads_its_study_with_the_rights_of_the_bridge(web: Web, below: str) -> None:
    answer = web.get(f"{STUDY}{below}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("multipart/related")
    assert b"DICM" in answer.content
    (asked,) = web.archive.requests
    assert asked.url.path == f"/dw/studies/{STUDY}{below}"
    assert (asked.headers["authorization"], asked.headers["accept"]) == ("Basic YnJpZGdlOnNlY3JldA==", "multipart/x")


@pytest.mark.parametrize(
    "path",
    [
        "1.2.3",
        f"1.2.3/series/{STUDY}.1",
        f"{STUDY}/../1.2.3",
        f"{STUDY}%2F..%2F1.2.3",
        f"{STUDY}/series/../../1.2.3",
        f"{STUDY}/series/%2E%2E/instances/%2E%2E",
        f"{STUDY}/series/1.2?x=/studies/1.2.3#",
        f"{STUDY}/rendered",
        f"{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1/bulkdata/x",
        f"{STUDY}/series/a",
        f"{STUDY}/",
        "",
    ],
)
def test_it_reads_nothing_else(web: Web, path: str) -> None:
    answer = web.get(path)
    assert answer.status_code in (401, 404) or web.archive.asked == [f"/dw/studies/{STUDY}/series/1.2"]
    assert all(asked.startswith(f"/dw/studies/{STUDY}/series/1.2") for asked in web.archive.asked)


def test_no_token_another_one_and_one_that_is_over_read_nothing(web: Web, tokens: Tokens, tmp_path: Path) -> None:
    others = [
        "",
        "x",
        web.token + "A",
        web.token[:-2],
        "A" * 300,
        "A" * 10_000,
        Tokens(tmp_path / "o").issue(STUDY, NOW + 60),
    ]
    assert {web.get(STUDY, other).status_code for other in others} == {401}
    assert web.get(STUDY, scheme="Basic").status_code == 401
    web.now = NOW + 60
    assert web.get(STUDY).status_code == 401
    assert not web.archive.asked


def test_any_other_bit_makes_it_no_token(tokens: Tokens) -> None:
    token, seed = tokens.issue(STUDY, NOW + 60), random.Random(1)
    assert tokens.study_of(token, NOW) == STUDY
    for _ in range(2_000):
        n = seed.randrange(len(token))
        other = (
            token[:n]
            + seed.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=é")
            + token[n + 1 :]
        )
        assert other == token or tokens.study_of(other, NOW) in (None, STUDY)
        assert n > 42 or other == token or tokens.study_of(other, NOW) is None


def test_tokens_outlive_a_restart_and_the_key_is_nobody_elses(tmp_path: Path) -> None:
    token = Tokens(tmp_path / "key").issue(STUDY, NOW + 60)
    assert Tokens(tmp_path / "key").study_of(token, NOW) == STUDY
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").write_bytes(b"cut")
    assert Tokens(tmp_path / "key").study_of(token, NOW) is None


@pytest.mark.parametrize(("code", "status"), [(404, 404), (410, 404), (500, 502), (302, 502), (401, 502)])
def test_what_the_archive_does_not_give_is_told(web: Web, code: int, status: int) -> None:
    web.archive.instead = lambda _request, _files: httpx.Response(code, headers={"Location": "http://else/"})
    assert web.get(STUDY).status_code == status
    assert len(web.archive.asked) == 1


def test_only_so_many_are_sent_at_once_and_every_place_comes_back(
    tmp_path: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "AT_ONCE", 1)
    inside: list[int] = []

    class Opened:
        content_type = "text/plain"

        def __init__(self, ask: Callable[[], httpx.Response] | None) -> None:
            self.ask, self.closed = ask, False

        def chunks(self) -> Iterator[bytes]:
            if self.ask is not None:
                inside.append(self.ask().status_code)
            yield b"x"

        def close(self) -> None:
            self.closed = True

    given: list[Opened] = []

    def opened(_study: str, path: str, _accept: str) -> Opened:
        if path.endswith("metadata"):
            raise SourceUnavailable("source pacs: away")
        given.append(Opened(None if inside else lambda: web.get(STUDY)))
        return given[-1]

    web = Web(tmp_path, tokens)
    app = FastAPI()
    app.include_router(router(Images(lambda token: tokens.study_of(token, NOW), opened)))
    web.client = TestClient(app, raise_server_exceptions=False)
    assert web.get(STUDY).content == b"x"
    assert inside == [503]
    for _ in range(3):
        assert web.get(f"{STUDY}/metadata").status_code == 502
        assert web.get(STUDY).status_code == 200
    assert all(one.closed for one in given)


def test_files_of_ours_are_given_as_they_lie_there(tmp_path: Path) -> None:
    held = {f"{n}/{i}.dcm": a_dataset(series=n, instance=i) for n in (1, 2) for i in (1, 2)}
    for path, made in held.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        made.save_as(tmp_path / path, enforce_file_format=True)
    found = [Headers.from_dataset(made) for made in held.values()]
    paths = {str(made.SOPInstanceUID): (path,) for path, made in held.items()}
    images = FileImages(
        "inbox",
        tmp_path,
        lambda uid: found if uid == STUDY else (),
        lambda uids: {uid: paths[uid] for uid in uids},
    )

    def contents(path: str) -> list[bytes]:
        opened = images.opened(path, "*/*")
        assert opened is not None
        limit = opened.content_type.rpartition("boundary=")[2].encode()
        parts = b"".join(opened.chunks()).split(b"--" + limit)
        assert parts[-1] == b"--\r\n"
        return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]]

    everything = [(tmp_path / path).read_bytes() for path in held]
    assert contents(f"/studies/{STUDY}") == everything
    assert contents(f"/studies/{STUDY}/series/{STUDY}.2") == everything[2:]
    assert contents(f"/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.1") == [everything[2]]
    for nothing in ("1.2", f"{STUDY}/series/1.2", f"{STUDY}/metadata", f"{STUDY}/series/{STUDY}.1/metadata"):
        assert images.opened(f"/studies/{nothing}", "*/*") is None
    (tmp_path / "2/1.dcm").unlink()
    with pytest.raises(SourceUnavailable, match="have changed"):
        images.opened(f"/studies/{STUDY}", "*/*")
