"""A certificate that signs itself, for a server of 127.0.0.1."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


class Certificate:
    """Made by openssl, in a folder.

    Attributes:
        file: the certificate.
        key: its private key.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.key = folder / "certificate.pem", folder / "key.pem"
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += [
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-out",
            str(self.file),
            "-keyout",
            str(self.key),
        ]
        subprocess.run(command, check=True, capture_output=True)

    def trusted(self) -> ssl.SSLContext:
        """What a client needs to trust it."""
        return ssl.create_default_context(cafile=self.file)
