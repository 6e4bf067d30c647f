"""A signed release: by its key, by another, after a change."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gddctl.core.errors import ArtifactError, EnvironmentMissing, RunFailed, UsageError
from gddctl.ship.sign import check_signature, sign
from gddctl.ship.verify import verify
from tests.commands.conftest import call

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here (apt install openssh-client)")


def make_key(path: Path, *words: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "somebody", *words, "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture(scope="module")
def public(key: Path) -> Path:
    return key.with_name("key.pub")


def test_a_release_signed_by_the_command_verifies_with_the_public_key(home: Path, key: Path, public: Path, tmp_path: Path) -> None:
    done = call("ship", home / "student", "-o", tmp_path / "out", "--sign", key)
    assert done.code == 0, done.err
    done = call("verify", tmp_path / "out", "--public-key", public)
    assert done.code == 0 and "signature good" in done.out, done.err
    assert verify(tmp_path / "out").signature == "not checked"
    by_hand = tmp_path / "allowed"
    by_hand.write_text(f"release {public.read_text()}")
    words = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(by_hand),
        "-I",
        "release",
        "-n",
        "gddctl-release",
        "-s",
        str(tmp_path / "out" / "manifest.json.sig"),
    ]
    assert subprocess.run(words, input=(tmp_path / "out" / "manifest.json").read_bytes(), capture_output=True).returncode == 0


def test_one_changed_byte_of_the_manifest_breaks_it(copied: Path, key: Path, public: Path) -> None:
    sign(copied, key)
    check_signature(copied, public)
    manifest = copied / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.9999", "0.0001"))
    done = call("verify", copied, "--public-key", public)
    assert done.code == 5 and "not a signature of this manifest" in done.err


def test_somebody_elses_key_and_another_purpose(copied: Path, key: Path, public: Path, tmp_path: Path) -> None:
    sign(copied, make_key(tmp_path / "other"))
    with pytest.raises(ArtifactError, match="not a signature of this manifest"):
        check_signature(copied, public)
    (copied / "manifest.json.sig").unlink()
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", "file", str(copied / "manifest.json")], check=True)
    with pytest.raises(ArtifactError, match="not a signature of this manifest"):
        check_signature(copied, public)
    (copied / "manifest.json.sig").write_bytes(b"")
    with pytest.raises(ArtifactError, match="not a signature of this manifest"):
        check_signature(copied, public)


def test_an_unsigned_release_does_not_pass_where_a_signature_is_asked_for(release: Path, public: Path) -> None:
    with pytest.raises(ArtifactError, match="not signed"):
        verify(release, public_key=public)


def test_keys_that_are_none(home: Path, copied: Path, tmp_path: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("ship", home / "student", "-o", tmp_path / "out", "--sign", tmp_path / "nokey")
    assert done.code == 2 and "no such private key" in done.err and not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="no such public key"):
        verify(copied, public_key=tmp_path / "nokey")
    (tmp_path / "text").write_text("not a key")
    with pytest.raises(RunFailed, match="could not sign"):
        sign(copied, tmp_path / "text")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match="ssh-keygen"):
        sign(copied, tmp_path / "text")
