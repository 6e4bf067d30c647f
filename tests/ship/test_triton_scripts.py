"""The scripts beside ``config.pbtxt``: run by a real shell on a real release's files."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from gddctl.core.digest import sha256_file
from gddctl.ship.deployment import write_deployment
from gddctl.ship.shipped import Shipped
from tests.conftest import Exported
from tests.ship.making import engine_of, lay, retold

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def sh(release: Path, script: str, *arguments: str, shell: str = "sh", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [shell, "sh"] if shell == "busybox" else [shell]
    return subprocess.run(
        [*command, str(release / "triton" / script), *arguments],
        capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def release(psp: Exported, tmp_path: Path) -> Path:
    folder = tmp_path / "my release"  # a space, as folders have
    write_deployment(folder, lay(folder, [psp.fp32_deploy, psp.int8_deploy]))
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_the_repository_is_laid_out_without_a_second_copy(release: Path, tmp_path: Path, shell: str) -> None:
    repository = tmp_path / "repository of models"
    done = sh(release, "assemble.sh", str(repository), shell=shell)
    assert done.returncode == 0, done.stderr
    stems = sorted(path.stem for path in (release / "models").iterdir())
    assert sorted(path.name for path in repository.iterdir()) == stems
    for stem in stems:
        placed, source = repository / stem / "1" / "model.onnx", release / "models" / f"{stem}.onnx"
        assert placed.samefile(source), "a hard link where both are on one disk"
        assert (repository / stem / "config.pbtxt").read_text() == (release / "triton" / "models" / stem / "config.pbtxt").read_text()
    again = sh(release, "assemble.sh", str(repository), shell=shell)
    assert again.returncode == 0 and again.stdout.count("there already") == len(stems)


def test_a_changed_file_is_not_placed(release: Path, tmp_path: Path) -> None:
    victim = next((release / "models").glob("*int8*"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = sh(release, "assemble.sh", str(tmp_path / "repository"))
    assert done.returncode == 5 and victim.name in done.stderr
    assert not (tmp_path / "repository" / victim.stem).exists()
    assert not list((tmp_path / "repository").glob(".making-*"))


def test_what_is_there_is_not_replaced(release: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    stem = sorted(path.stem for path in (release / "models").iterdir())[0]
    (repository / stem / "1").mkdir(parents=True)
    (repository / stem / "1" / "model.onnx").write_bytes(b"somebody's own")
    done = sh(release, "assemble.sh", str(repository))
    assert done.returncode == 5 and "holds something else" in done.stderr
    assert (repository / stem / "1" / "model.onnx").read_bytes() == b"somebody's own"


@pytest.mark.parametrize("inside", ["triton/repository", "models", "."])
def test_the_release_itself_stays_as_it_is(release: Path, inside: str) -> None:
    before = sorted(path.relative_to(release) for path in release.rglob("*"))
    for script in ("assemble.sh", "build-plans.sh"):
        done = sh(release, script, str(release / inside))
        assert done.returncode == 2 and "inside the release" in done.stderr
    assert sorted(path.relative_to(release) for path in release.rglob("*")) == before


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
def test_shellcheck_finds_nothing(release: Path, tmp_path: Path) -> None:
    def found(path: Path) -> str:
        return subprocess.run(["shellcheck", "--shell=sh", str(path)], capture_output=True, text=True, timeout=120).stdout

    assert [found(path) for path in sorted((release / "triton").glob("*.sh"))] == ["", ""]
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/bin/sh\ncd $1\n")
    assert "SC2086" in found(bad), "partner: it does look"


def test_usage_is_said(release: Path) -> None:
    done = sh(release, "assemble.sh")
    assert done.returncode == 2 and "usage" in done.stderr


@pytest.fixture
def trtexec(tmp_path: Path) -> Path:
    """Stands in for TensorRT's program, which needs a GPU: writes down what it was asked, and a file where the plan belongs."""
    program = tmp_path / "trtexec"
    program.write_text(
        '#!/bin/sh\nprintf \'%s\\n\' "$@" > "$0.asked"\n[ -z "$FAIL" ] || { echo "no such GPU"; exit 1; }\n'
        'for word in "$@"; do case $word in --saveEngine=*) echo plan > "${word#--saveEngine=}";; esac; done\n'
    )
    program.chmod(0o755)
    return program


def plan_release(psp: Exported, folder: Path, *, with_engine: bool) -> Path:
    lay(folder, [psp.fp32_deploy])
    file = folder / "models" / "tiny-fp16-any.deploy.onnx"
    shutil.copy(psp.fp32_deploy.path, file)  # what is in it does not matter to a shell
    base = Shipped(PurePosixPath("models") / psp.fp32_deploy.path.name, psp.fp32_deploy.info, "onnx", psp.fp32_deploy.sha256)
    source = retold(base, precision="fp16")
    models = [base, source]
    if with_engine:
        engine = folder / "models" / "tiny-fp16-tensorrt.deploy.engine"
        engine.write_bytes(b"engine of another TensorRT")
        models.append(replace(engine_of(source, "tensorrt"), sha256=sha256_file(engine)))
    write_deployment(folder, models)
    return folder


def test_plans_are_built_with_the_profile_of_the_configuration(psp: Exported, tmp_path: Path, trtexec: Path) -> None:
    release, repository = plan_release(psp, tmp_path / "release", with_engine=False), tmp_path / "repository"
    done = sh(release, "build-plans.sh", str(repository), TRTEXEC=str(trtexec), FAIL="")
    assert done.returncode == 0, done.stderr
    plan = repository / "tiny-fp16-tensorrt.deploy" / "1" / "model.plan"
    assert plan.read_text() == "plan\n"
    asked = Path(f"{trtexec}.asked").read_text().splitlines()
    assert f"--onnx={release}/models/tiny-fp16-any.deploy.onnx" in asked
    assert "--stronglyTyped" in asked and "--noTF32" in asked
    assert [word for word in asked if "Shapes" in word] == [
        "--minShapes=image:1x64x96x3",
        "--optShapes=image:1x64x96x3",
        "--maxShapes=image:8x64x96x3",
    ]
    assert "max_batch_size: 8" in (repository / "tiny-fp16-tensorrt.deploy" / "config.pbtxt").read_text()


def test_a_plan_built_here_is_kept_beside_the_shipped_one(psp: Exported, tmp_path: Path, trtexec: Path) -> None:
    release, repository = plan_release(psp, tmp_path / "release", with_engine=True), tmp_path / "repository"
    assert sh(release, "build-plans.sh", str(repository), TRTEXEC=str(trtexec), FAIL="").returncode == 0
    done = sh(release, "assemble.sh", str(repository))
    assert done.returncode == 0 and "left alone: tiny-fp16-tensorrt.deploy" in done.stdout, done.stderr
    assert (repository / "tiny-fp16-tensorrt.deploy" / "1" / "model.plan").read_text() == "plan\n"
    fresh = sh(release, "assemble.sh", str(tmp_path / "other"))
    assert fresh.returncode == 0
    assert (tmp_path / "other" / "tiny-fp16-tensorrt.deploy" / "1" / "model.plan").read_bytes() == b"engine of another TensorRT"


def test_a_failed_build_leaves_nothing_and_says_why(psp: Exported, tmp_path: Path, trtexec: Path) -> None:
    release, repository = plan_release(psp, tmp_path / "release", with_engine=False), tmp_path / "repository"
    done = sh(release, "build-plans.sh", str(repository), TRTEXEC=str(trtexec), FAIL="1")
    assert done.returncode == 6 and "no such GPU" in done.stderr
    assert list(repository.iterdir()) == []


def test_no_trtexec_is_said(psp: Exported, tmp_path: Path) -> None:
    release = plan_release(psp, tmp_path / "release", with_engine=False)
    done = sh(release, "build-plans.sh", str(tmp_path / "repository"), TRTEXEC="no-such-program-here")
    assert done.returncode == 4 and "trtexec" in done.stderr
