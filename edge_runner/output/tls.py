"""TLS to a broker: its files, and what went wrong in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edge_runner.errors import SettingError
from edge_runner.fields import InputPath
from edge_runner.output.disk import words

if TYPE_CHECKING:  # which takes time to import
    import ssl


@dataclass(frozen=True)
class Tls:
    """PEM files. `ca` None is the system's authorities; `cert` and `key` are this client's own."""

    ca: Annotated[Path, InputPath("file")] | None = None
    cert: Annotated[Path, InputPath("file")] | None = None
    key: Annotated[Path, InputPath("file")] | None = None


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Made anew for each connection: certificates are renewed. Raise SettingError where a file is not what it should be."""
    import ssl

    class Socket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            """Paho leaves one that fails open."""
            try:
                super().do_handshake(block)
            except OSError:
                self.close()
                raise

    if tls.key and not tls.cert:
        raise SettingError("given without tls.cert", key="tls.key")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    except OSError as error:
        raise SettingError(f"{tls.ca}: no certificates in PEM ({_words(error)})", key="tls.ca") from error
    context.sslsocket_class = Socket
    if tls.ca:  # Python 3.13 wants an authority's certificate to say of itself what most private ones do not
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except OSError as error:
            hint = "a certificate and its key, in PEM, without a password"
            raise SettingError(f"{tls.cert}: {_words(error)}; allowed: {hint}", key="tls.cert") from error
    return context


def why_not(error: OSError) -> str:
    """Why no connection could be made."""
    if type(error).__name__ == "SSLCertVerificationError":
        return (
            f"its certificate is not to be trusted ({getattr(error, 'verify_message', error)}); check host and tls.ca"
        )
    if type(error).__name__.startswith("SSL"):
        return f"no TLS ({_words(error)}); is this its TLS port?"
    hint = "; does this port want tls, or none?" if isinstance(error, ConnectionResetError) else ""
    return f"it cannot be reached ({words(error)}){hint}"


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else words(error)
