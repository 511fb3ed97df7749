"""A certificate that this machine makes for itself, for tests of TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def certified(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, good for two days."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    what = ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run([*make, "-keyout", key, "-out", certificate, *what], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not installed")
    return certificate, key
