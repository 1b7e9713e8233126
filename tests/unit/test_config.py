from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from bridge import ai_peers, config, connections
from bridge.errors import ConfigError

ORTHANC = {"kind": "orthanc", "name": "pacs", "url": "http://h:8042"}
EHR = {"kind": "fhir_server", "name": "ehr", "url": "https://ehr.example/fhir"}
STOW = {"kind": "stow", "name": "a", "url": "https://h/dw"}
RULE: dict[str, Any] = {"modalities": ["CT"]}
MODEL = {"name": "m", "url": "https://h/m", "version": "1", "rule": RULE}
OAUTH = {"token_url": "https://login.example/token", "client_id": "bridge", "client_secret": "hunter2"}
SMART = {"client_id": "bridge", "key": "smart.pem", "scope": "system/*.cruds"}
HTTP = {"url": "http://ehr.example/fhir"}
TOKENS = {"token_url": "http://login.example/token"}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"archives": [{"kind": "ftp", "name": "a"}]}, "archives[0].kind: found 'ftp'; allowed: c_store, stow"),
        ({"archives": [STOW | {"urll": 1}]}, "archives[0].urll: unknown setting. Did you mean url?"),
        ({"archives": [STOW | {"sources": ["pacs"]}]}, "archives: a: sources: there is no source pacs"),
        ({"archives": [STOW | {"url": "http://h/dw", "username": "u"}]}, "credentials would travel unencrypted"),
        (
            {"models": [MODEL | {"rule": {"modality": ["CT"]}}]},
            "rule.modality: unknown setting. Did you mean modalities",
        ),
        ({"models": [MODEL | {"rule": {"modalities": ["CT", "SR"]}}]}, "models[0].rule: modalities: not SR"),
        ({"models": [MODEL | {"rule": RULE | {"sources": ["x"]}}]}, "models: m: rule.sources: there is no source x"),
        ({"models": [MODEL | {"urll": 1}]}, "models[0].urll: unknown setting. Did you mean url?"),
        ({"quiet": 1}, "quiet: unknown setting. Did you mean quiet_s?"),
        ({"api": {"port": 99999}}, "api.port: found 99999; allowed: less than or equal to 65535"),
        ({"api": {"prot": 1}}, "api.prot: unknown setting. Did you mean port?"),
        (
            {"sources": [{"kind": "pacs", "name": "a"}]},
            "sources[0].kind: found 'pacs'; allowed: dicom_server, dicomweb, dimse, folder, orthanc, receiver",
        ),
        (
            {"sources": [{"name": "a"}]},
            "sources[0].kind: missing; allowed: dicom_server, dicomweb, dimse, folder, orthanc, receiver",
        ),
        ({"sources": [{"kind": "orthanc", "name": "a"}]}, "sources[0].url: missing"),
        (
            {"sources": [ORTHANC | {"name": "Bad Name"}]},
            "sources[0].name: found 'Bad Name'; allowed: a name of lower-case",
        ),
        ({"sources": [ORTHANC | {"url": "ftp://x"}]}, "sources[0].url: found 'ftp://x'; allowed: an http://"),
        (
            {"sources": [ORTHANC | {"url": "http://x:99999"}]},
            "sources[0].url: found 'http://x:99999'; allowed: an http://",
        ),
        ({"sources": [ORTHANC | {"url": "http://u:p@h"}]}, "sources[0].url"),
        ({"sources": [ORTHANC | {"usrname": "x"}]}, "sources[0].usrname: unknown setting. Did you mean username?"),
        ({"sources": [ORTHANC, ORTHANC]}, "twice: pacs"),
        ({"identity": {"study_id_system": "mrn"}}, "identity.study_id_system: found 'mrn'; allowed: a URI such as"),
        (
            {"identity": {"ae_titles": {"CT1": {"zone": "UTC"}}}},
            "identity.ae_titles.CT1.zone: unknown setting. Did you mean time_zone?",
        ),
        (
            {"identity": {"ae_titles": {"CT1": {"time_zone": "Vienna"}}}},
            "identity.ae_titles.CT1.time_zone: found 'Vienna'; allowed: an IANA",
        ),
        ({"translation": {"unmapped": "text"}}, "translation.unmapped: unknown setting. Did you mean unmapped_codes?"),
        ({"translation": {"unmapped_codes": "local"}}, "unmapped_codes = local needs local_code_system"),
        ({"time_zone": "Vienna"}, "time_zone: found 'Vienna'; allowed: an IANA time zone"),
        ({"workers": "many"}, "workers: found 'many'; allowed"),
        ({"sinks": [{"kind": "fhir_server", "name": "lake", "url": "http://h"}]}, "lake"),
        ({"sinks": [EHR | {"oauth": OAUTH, "smart": SMART}]}, "give one way to sign in, not oauth and smart"),
        ({"sinks": [EHR | {"bearer_token": "t", "username": "u"}]}, "not username and password and bearer_token"),
        ({"lake": {"url": "/data/lake"}}, "lake.url: found '/data/lake'; allowed: s3://BUCKET/PREFIX, or empty"),
        ({"lake": {"url": "s3://b/l", "endpoint": "http://s3.example"}}, "lake: endpoint: patients' data would travel"),
        ({"lake": {"url": "s3://b/l", "access_key_id": "a"}}, "secret_access_key belong together"),
        ({"lake": {"endpoint": "https://s3.example"}}, "need url = s3://BUCKET/PREFIX"),
        ({"log": {"fromat": "json"}}, "log.fromat: unknown setting. Did you mean format?"),
        ({"traces": {"endpont": "x"}}, "traces.endpont: unknown setting. Did you mean endpoint?"),
        ({"lake": {"cach_gb": 1}}, "lake.cach_gb: unknown setting. Did you mean cache_gb?"),
        ({"sinks": [EHR | {"password": "p"}]}, "sinks[0]: password needs username"),
        ({"sinks": [EHR | {"smart": SMART | {"keyid": "x"}}]}, "smart.keyid: unknown setting. Did you mean key_id?"),
        ({"sinks": [EHR | {"smart": SMART | {"algorithm": "HS256"}}]}, "sinks[0].smart.algorithm: found 'HS256'"),
        (
            {"sinks": [EHR | {"smart": SMART | {"jku": "http://h/k"}}]},
            "jku: found 'http://h/k'; allowed: an https",
        ),
        ({"sinks": [EHR | {"smart": SMART | {"token_url": "https://h:99999/t"}}]}, "allowed: an http:// or https://"),
        ({"sinks": [EHR | {"smart": {"client_id": "bridge", "key": "k"}}]}, "sinks[0].smart.scope: missing"),
        ({"sinks": [EHR | HTTP | {"bearer_token": "t"}]}, "sinks[0]: url: credentials would travel unencrypted"),
        ({"sinks": [EHR | HTTP | {"username": "u", "password": "p"}]}, "url: credentials would travel unencrypted"),
        ({"sinks": [EHR | {"oauth": OAUTH | TOKENS}]}, "oauth.token_url: credentials would travel unencrypted"),
        ({"sinks": [EHR | {"smart": SMART | TOKENS}]}, "smart.token_url: credentials would travel unencrypted"),
        (
            {"fetch": [{"url": "https://h", "usrname": "u"}]},
            "fetch[0].usrname: unknown setting. Did you mean username?",
        ),
        ({"fetch": [HTTP | {"bearer_token": "t"}]}, "fetch[0]: url: credentials would travel unencrypted"),
        ({"sinks": [EHR | HTTP | {"tls": {"ca": "ca.pem"}}]}, "tls needs an https:// address in url"),
    ],
)
def test_an_error_names_the_key_what_was_found_and_what_is_allowed(raw: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(raw)
    assert told in str(caught.value)


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse({"sources": [ORTHANC | {"password": ["hunter2"]}]})
    assert "hunter2" not in str(caught.value)
    good = config.parse({"sources": [ORTHANC | {"password": "hunter2"}]})
    assert "hunter2" not in repr(good)
    assert "hunter2" not in good.model_dump_json()


def test_the_file_that_init_writes_is_valid_and_shows_every_setting(tmp_path: Path) -> None:
    text = (files("bridge") / "bridge.toml").read_text("utf-8")
    path = tmp_path / "bridge.toml"
    path.write_text(text)
    assert [s.name for s in config.load(path, {}).sources] == ["inbox", "receiver"]
    sections = (config.Settings, config.Api, config.Identity, config.Cohort, config.FolderSource, config.ReceiverSource)
    tables = ("sources", "sinks", "clinical", "api", "identity", "translation", "cohort", "issuers", "fetch", "lake")
    tables += ("archives", "models", "rule", "log", "traces", "documents")
    for section in (
        *sections,
        config.AeTitleIdentity,
        config.Translation,
        config.LakeSettings,
        config.Log,
        config.Traces,
        config.Documents,
        config.OrthancSource,
        config.DicomServerSource,
        config.DicomWebSource,
        config.DimseSource,
        config.FhirServerSink,
        config.ClinicalServer,
        ai_peers.StowArchive,
        ai_peers.CStoreArchive,
        ai_peers.Model,
        ai_peers.ModelRule,
        connections.FetchArchive,
        connections.Smart,
        connections.OAuth,
        connections.ClientTls,
    ):
        for name in section.model_fields:
            if name not in tables:
                assert f"{name} = " in text, name


def test_every_commented_setting_is_valid_too(tmp_path: Path) -> None:
    text = (files("bridge") / "bridge.toml").read_text("utf-8")
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        setting = line.startswith("# ") and ("= " in bare or bare.startswith("[")) and not bare.startswith("Relative")
        lines.append(bare if setting else line)
    path = tmp_path / "bridge.toml"
    settled = "\n".join(lines).replace('username = ""\npassword = "${EHR', 'username = "x"\npassword = "${EHR')
    path.write_text(settled)
    loaded = config.load(path, dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", settled), "x"))
    assert [s.name for s in loaded.sources] == ["inbox", "receiver", "pacs", "cloud", "vna", "oldpacs"]
    assert [s.name for s in loaded.clinical] == ["ehr-data"]
    assert [s.name for s in (*loaded.archives, *loaded.models)] == ["vna-documents", "pacs-documents", "lungnet"]
    assert loaded.identity.issuers
    assert loaded.identity.ae_titles["CT1"].time_zone == "Europe/Vienna"
    assert loaded.translation.code_maps == tmp_path / "code-maps"
    (archive,) = loaded.fetch
    assert archive.oauth is not None and archive.tls is not None and archive.tls.ca == tmp_path / "ca.pem"


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "b.toml"
    path.parent.mkdir()
    path.write_text('data_dir = "d"\n[[sources]]\nkind = "folder"\nname = "x"\npath = "in"\n')
    loaded = config.load(path)
    assert loaded.data_dir == path.parent / "d"
    (source,) = loaded.sources
    assert isinstance(source, config.FolderSource)
    assert source.path == path.parent / "in"


def test_environment_variables_fill_in_and_missing_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text('[[sources]]\nkind = "orthanc"\nname = "x"\nurl = "http://${HOST}:8042"\n')
    (source,) = config.load(path, {"HOST": "pacs"}).sources
    assert isinstance(source, config.OrthancSource)
    assert source.url == "http://pacs:8042"
    with pytest.raises(ConfigError, match=r"sources\[0\].url: the environment variable HOST"):
        config.load(path, {})


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no such file"), ("a = ", "not valid TOML"), (b"\xff", "cannot be read")]
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: str | bytes | None, told: str) -> None:
    path = tmp_path / "b.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=told):
        config.load(path)


def test_the_embedded_default_listens_on_loopback_only() -> None:
    embedded = config.embedded()
    hosts = {embedded.api.host} | {s.host for s in embedded.sources if isinstance(s, config.ReceiverSource)}
    assert hosts == {"127.0.0.1"}


@pytest.mark.parametrize(
    "sink",
    [
        EHR | HTTP,
        EHR | HTTP | {"bearer_token": "t", "allow_http": True},
        EHR | {"url": "http://127.0.0.1:8080/fhir", "oauth": OAUTH | {"token_url": "http://localhost/token"}},
        EHR | {"smart": SMART | {"token_url": "https://login.example/token"}, "tls": {"ca": "ca.pem"}},
    ],
)
def test_credentials_may_go_over_https_within_the_machine_and_where_that_is_said(sink: dict[str, Any]) -> None:
    assert len(config.parse({"sinks": [sink]}).sinks) == 1


@pytest.mark.parametrize("oauth", [[OAUTH], "hunter2", OAUTH | {"client_secret": ["hunter2"]}])
def test_the_secret_of_an_unreadable_sign_in_is_never_shown(oauth: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse({"sinks": [EHR | {"oauth": oauth}]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("way", ["oauth", "smart"])
def test_each_way_to_sign_in_that_the_file_shows_is_valid(tmp_path: Path, way: str) -> None:
    text = (files("bridge") / "bridge.toml").read_text("utf-8")
    (shown,) = re.findall(rf"^# +# ({way} = .*)$", text, re.M)
    path = tmp_path / "bridge.toml"
    path.write_text("[[sinks]]\n" + "\n".join(f'{k} = "{v}"' for k, v in EHR.items()) + f"\n{shown}\n")
    (sink,) = config.load(path, {"EHR_SECRET": "hunter2"}).sinks
    assert getattr(sink, way) is not None
    if sink.smart is not None:
        assert sink.smart.key == tmp_path / "smart.pem"
