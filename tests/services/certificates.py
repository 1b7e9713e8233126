"""A certificate authority of our own, made by openssl for one test run."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.services.peers import program


@dataclass(frozen=True)
class Authority:
    """Signs certificates; everything lies in `folder`."""

    folder: Path
    name: str = "authority"

    @classmethod
    def made(cls, folder: Path, name: str = "authority") -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        authority = cls(folder, name)
        subject = f"/CN={name}"
        authority._openssl("req", "-x509", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", subject)
        return authority

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def signed(self, name: str, address: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate for an address, and its key."""
        extension = self.folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={address}\nbasicConstraints=CA:FALSE\n")
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        authority = ("-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", *authority, "-out", f"{name}.pem", "-extfile", extension.name
        )
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def server_context(
        self, name: str = "server", address: str = "IP:127.0.0.1", mutual: bool = True
    ) -> ssl.SSLContext:
        """A server with a signed certificate, which wants one of this authority from its clients if `mutual`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.signed(name, address))
        if mutual:
            context.load_verify_locations(self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run([program("openssl"), *arguments], cwd=self.folder, check=True, capture_output=True)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
