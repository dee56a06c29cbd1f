"""Certificates for tests, created with openssl as an operator would."""

import subprocess
from pathlib import Path

from attrs import frozen


def openssl(*arguments, folder):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@frozen
class Authority:
    """A certificate authority."""

    folder: Path
    name: str = "ca"

    def __attrs_post_init__(self):
        self.folder.mkdir(exist_ok=True)
        subject = f"/CN={self.name}"
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
            *("-keyout", f"{self.name}.key", "-out", f"{self.name}.pem", "-subj", subject),
            folder=self.folder,
        )

    @property
    def pem(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def sign(self, name, *, alternative=None, days=30, until=None, subject=None) -> tuple[Path, Path]:
        """Return the files of a certificate and its key.  *name* names the files, and the subject without *subject*."""
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject or f"/CN={name}"),
            folder=self.folder,
        )
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternative}" if alternative else "")
        end = ["-not_before", "20200101000000Z", "-not_after", until] if until else ["-days", str(days)]
        if until:
            # `openssl x509` of older versions accepts no dates, and `openssl ca` does.
            self._sign_until(name, until)
        else:
            openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key"),
                *("-CAcreateserial", "-out", f"{name}.pem", "-extfile", f"{name}.ext", *end),
                folder=self.folder,
            )
        (self.folder / f"{name}.key").chmod(0o600)
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _sign_until(self, name, until):
        (self.folder / "index").write_text("")
        (self.folder / "serial").write_text("1000")
        (self.folder / "ca.cnf").write_text(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
            "[p]\ncommonName=supplied\n"
        )
        openssl(
            *("ca", "-batch", "-config", "ca.cnf", "-cert", f"{self.name}.pem", "-keyfile", f"{self.name}.key"),
            *("-in", f"{name}.csr", "-out", f"{name}.pem", "-startdate", "20200101000000Z", "-enddate", until),
            *("-extfile", f"{name}.ext", "-notext"),
            folder=self.folder,
        )
