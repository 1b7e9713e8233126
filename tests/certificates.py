"""A certificate authority of a test, by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services.peers import program

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Issues certificates for names, into a folder. Skips the test where openssl is missing."""

    def __init__(self, folder: Path) -> None:
        self._openssl, self._folder = str(program("openssl")), folder
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        self._run(
            "req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=Test CA", "-keyout", self._key, "-out", self.certificate
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) for a DNS name."""
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n", "utf-8")
        self._run("req", *_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signing = ["x509", "-req", "-days", "2", "-CAcreateserial", "-CA", self.certificate, "-CAkey", self._key]
        self._run(*signing, "-in", request, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def _run(self, *arguments: str | Path) -> None:
        subprocess.run([self._openssl, *map(str, arguments)], check=True, capture_output=True)
