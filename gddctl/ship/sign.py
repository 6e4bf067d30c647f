"""A signature over the manifest, made and checked by OpenSSH: the manifest names every other byte, so one signature covers all."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from gddctl.core.errors import ArtifactError, EnvironmentMissing, RunFailed, UsageError
from gddctl.ship.manifest import RELEASE_MANIFEST, SIGNATURE

NAMESPACE = "gddctl-release"  # a signature made for something else does not pass here
_WHO = "release"
_SECONDS = 120  # a key on a token waits for a touch


def sign(folder: Path, key: Path) -> None:
    """Write the signature of ``folder``'s manifest with the private ``key`` (``ssh-keygen -t ed25519`` makes one).

    Raises:
        UsageError: no such key.
        EnvironmentMissing: OpenSSH's ssh-keygen is not installed.
        RunFailed: it could not sign; its own words are in the message.
    """
    require_key(key, "private key to sign with")
    done = _call(["-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE, str(folder / RELEASE_MANIFEST)])
    if done.returncode or not (folder / SIGNATURE).is_file():
        raise RunFailed(f"{key}: ssh-keygen could not sign with it ({_words(done)})", remedy="try it by hand: ssh-keygen -y -f KEY")


def check_signature(folder: Path, public_key: Path) -> None:
    """The signature in ``folder`` is of its manifest, by the holder of ``public_key``.

    Raises:
        UsageError: no such key.
        ArtifactError: no signature, of another manifest, or by another key.
        EnvironmentMissing: OpenSSH's ssh-keygen is not installed.
    """
    require_key(public_key, "public key to check with")
    signature, manifest = folder / SIGNATURE, folder / RELEASE_MANIFEST
    if not signature.is_file():
        raise ArtifactError(f"{folder}: not signed (no {SIGNATURE})", remedy="ask who made it for a signed release")
    key = public_key.read_text(encoding="utf-8", errors="replace").strip()
    with tempfile.TemporaryDirectory(prefix="gddctl-verify-") as name:
        allowed = Path(name) / "allowed"
        allowed.write_text(f'{_WHO} namespaces="{NAMESPACE}" {key}\n', encoding="utf-8")
        words = ["-Y", "verify", "-f", str(allowed), "-I", _WHO, "-n", NAMESPACE, "-s", str(signature)]
        done = _call(words, given=manifest.read_bytes())
    if done.returncode:
        raise ArtifactError(
            f"{signature}: not a signature of this manifest by {public_key} ({_words(done)})",
            remedy="do not use this release; get it again from who made it",
        )


def require_key(key: Path, what: str) -> None:
    """Refuse a key that is not there (UsageError), before any work is done for it."""
    if not key.is_file():
        raise UsageError(f"{key}: no such {what}", remedy="make a pair with: ssh-keygen -t ed25519 -f KEY")


def _call(words: list[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise EnvironmentMissing("signatures need OpenSSH's ssh-keygen, which is not here", remedy="apt install openssh-client")
    try:
        return subprocess.run([program, *words], input=given, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(
            f"ssh-keygen did not answer within {_SECONDS} s", remedy="unlock the key first, for example with ssh-add"
        ) from error


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join((done.stderr + b" " + done.stdout).decode(errors="replace").split())[:200] or f"exit {done.returncode}"
