"""Our receiver over TLS against DCMTK's storescu: who shows which certificate, and who gets in."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.sources.receiver import server_context
from tests.builders import write_file
from tests.services.peers import program
from tests.unit.test_receiver import Rig


def certificate(folder: Path, name: str, authority: str = "") -> None:
    """`name`.pem with `name`.key, signed by the authority of that name or by itself."""
    openssl = str(program("openssl"))
    key, pem, request = folder / f"{name}.key", folder / f"{name}.pem", folder / f"{name}.csr"
    new = [openssl, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-subj", f"/CN={name}"]
    if not authority:
        subprocess.run([*new, "-x509", "-days", "2", "-out", str(pem)], check=True, capture_output=True)
        return
    subprocess.run([*new, "-out", str(request)], check=True, capture_output=True)
    signed = [openssl, "x509", "-req", "-in", str(request), "-days", "2", "-CAcreateserial", "-out", str(pem)]
    by = ["-CA", str(folder / f"{authority}.pem"), "-CAkey", str(folder / f"{authority}.key")]
    subprocess.run([*signed, *by], check=True, capture_output=True)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name, authority in (("ca", ""), ("server", "ca"), ("ct1", "ca"), ("ct2", "ca"), ("stranger", "")):
        certificate(tmp_path, name, authority)
    return tmp_path


@pytest.fixture
def rig(keys: Path) -> Iterator[Rig]:
    context = server_context("rx", certificate=keys / "server.pem", key=keys / "server.key", client_ca=keys / "ca.pem")
    made = Rig(keys / "rx", tls=context, certificates={"CT1": "ct1"})
    yield made
    made.close()


def sent(rig: Rig, keys: Path, *tls: object, title: str = "CT1") -> bool:
    file = write_file(keys / "one.dcm")
    command = [str(program("storescu")), "-aet", title, "-aec", "BRIDGE", *map(str, tls)]
    done = subprocess.run(
        [*command, "127.0.0.1", str(rig.port), str(file)], capture_output=True, timeout=60, check=False
    )
    return done.returncode == 0


def with_certificate(keys: Path, name: str) -> list[object]:
    return ["+tls", keys / f"{name}.key", keys / f"{name}.pem", "+cf", keys / "ca.pem"]


def test_a_caller_with_the_certificate_of_its_title_is_received(rig: Rig, keys: Path) -> None:
    assert sent(rig, keys, *with_certificate(keys, "ct1"))
    assert len(rig.files()) == 1


def test_another_certificate_another_title_or_none_is_refused(rig: Rig, keys: Path) -> None:
    assert not sent(rig, keys, *with_certificate(keys, "ct2"))
    assert not sent(rig, keys, *with_certificate(keys, "ct1"), title="CT9")
    assert not sent(rig, keys, *with_certificate(keys, "stranger"))
    assert not sent(rig, keys, "+tla", "+cf", keys / "ca.pem")
    assert not sent(rig, keys)
    assert rig.files() == []


def test_peers_that_never_shake_hands_keep_nobody_out(rig: Rig, keys: Path) -> None:
    held = [socket.create_connection(("127.0.0.1", rig.port), timeout=10) for _ in range(50)]
    assert sent(rig, keys, *with_certificate(keys, "ct1"))
    for connection in held:
        connection.close()
