"""Two shell scripts of a release: one lays out Triton's model repository from its files, one builds the plans that must be built there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from gddctl.core.artifact.tensors import tensor_specs
from gddctl.ship.triton_model import TritonModel

_HEAD = """\
release=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
[ "$#" -eq 1 ] || { echo "usage: sh $0 REPOSITORY   (the folder to make; Triton's --model-repository)" >&2; exit 2; }
repository=$1
mkdir -p -- "$repository"
case $(CDPATH='' cd -- "$repository" && pwd)/ in
  "$release"/*)
    rmdir -p -- "$repository" 2>/dev/null || true
    echo "error: $repository lies inside the release, which has to stay as it was released; name another folder" >&2; exit 2;;
esac

sha256() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1" | cut -d ' ' -f 1; else shasum -a 256 <"$1" | cut -d ' ' -f 1; fi
}

check() {  # FILE SHA256
  [ -f "$release/$1" ] || { echo "error: $1 is not in this release; copy the whole folder" >&2; exit 5; }
  [ "$(sha256 "$release/$1")" = "$2" ] || { echo "error: $1 is not the file that was released; copy it again" >&2; exit 5; }
}
"""

_ASSEMBLE = """\
#!/bin/sh
# Lay out a Triton model repository from this release: sh triton/assemble.sh REPOSITORY
# Model files are linked (hard links) where REPOSITORY is on the same disk, else copied. Every file's SHA-256 is checked. What lies in
# REPOSITORY already is left alone; a model of the same name with other content stops the script.
# Run in the tests of gddctl; no Triton server has loaded the result there.
set -eu
{head}
place() {{  # NAME FILE SHA256 NAME-FOR-TRITON
  check "$2" "$3"
  target=$repository/$1
  if [ -e "$target" ]; then
    if cmp -s "$release/triton/models/$1/config.pbtxt" "$target/config.pbtxt"; then
      if cmp -s "$release/$2" "$target/1/$4"; then echo "there already: $1"; return; fi
      if [ "$4" = model.plan ] && [ -f "$target/1/$4" ]; then echo "left alone: $1, a plan built here"; return; fi
    fi
    echo "error: $target holds something else; remove it, or name another folder" >&2; exit 5
  fi
  making=$repository/.making-$1-$$
  trap 'rm -rf -- "$making"' EXIT
  mkdir -p -- "$making/1"
  cp -- "$release/triton/models/$1/config.pbtxt" "$making/config.pbtxt"
  ln -- "$release/$2" "$making/1/$4" 2>/dev/null || cp -- "$release/$2" "$making/1/$4"
  mv -- "$making" "$target"
  trap - EXIT
  echo "placed: $1"
}}

{calls}"""

_BUILD = """\
#!/bin/sh
# Build the TensorRT plans of this release, on the GPU and with the TensorRT that Triton will run them with:
#   sh triton/build-plans.sh REPOSITORY
# Not run here (no GPU): the commands below are those of trtexec from TensorRT 10.3 on. NVIDIA's TensorRT image of the same release as the
# Triton image has both; TRTEXEC names the program where it is not in PATH.
# A plan built here has been proven by nobody yet: compare its answers with the golden mask before it serves (see README.md beside this).
set -eu
{head}
trtexec=${{TRTEXEC:-trtexec}}
command -v "$trtexec" >/dev/null 2>&1 || trtexec=/usr/src/tensorrt/bin/trtexec
command -v "$trtexec" >/dev/null 2>&1 || {{ echo "error: no trtexec; run this in NVIDIA's TensorRT image, or set TRTEXEC" >&2; exit 4; }}

build() {{  # NAME ONNX SHA256 MIN OPT MAX
  check "$2" "$3"
  target=$repository/$1
  if [ -e "$target" ]; then echo "there already: $1 (remove it to build it again)"; return; fi
  making=$repository/.making-$1-$$
  trap 'rm -rf -- "$making"' EXIT
  mkdir -p -- "$making/1"
  "$trtexec" --onnx="$release/$2" --saveEngine="$making/1/model.plan" --stronglyTyped --noTF32 --skipInference \\
    --memPoolSize=workspace:"${{WORKSPACE_MB:-1024}}" --minShapes="$4" --optShapes="$5" --maxShapes="$6" >"$making/trtexec.log" 2>&1 \\
    || {{ tail -n 20 "$making/trtexec.log" >&2; echo "error: trtexec could not build $1" >&2; exit 6; }}
  cp -- "$release/triton/models/$1/config.pbtxt" "$making/config.pbtxt"
  mv -- "$making" "$target"
  trap - EXIT
  echo "built: $1"
}}

{calls}"""


def assemble_script(models: Iterable[TritonModel]) -> str:
    """``assemble.sh``: every model whose file is in the release."""
    calls = [
        shlex.join(["place", model.name, model.source.path.as_posix(), model.source.sha256, model.file])
        for model in models
        if model.source is not None
    ]
    return _ASSEMBLE.format(head=_HEAD, calls=_lines(calls, "nothing in this release is served by Triton without being built first"))


def build_script(models: Iterable[TritonModel]) -> str:
    """``build-plans.sh``: every plan whose ONNX file is in the release, also where a ready plan of another TensorRT is."""
    calls = [
        shlex.join(["build", model.name, model.onnx.path.as_posix(), model.onnx.sha256, *_shapes(model)])
        for model in models
        if model.onnx is not None
    ]
    return _BUILD.format(head=_HEAD, calls=_lines(calls, "no plan can be built from the files of this release"))


def _shapes(model: TritonModel) -> list[str]:
    """``image:1x64x96x3``: the profile's smallest, usual and largest input, as trtexec reads them."""
    batches = model.batches
    return [
        ",".join(f"{spec.name}:{'x'.join(map(str, spec.shape))}" for spec in tensor_specs(model.info, batch).inputs)
        for batch in (batches.smallest, batches.usual, batches.largest)
    ]


def _lines(calls: list[str], otherwise: str) -> str:
    return "\n".join([*(calls or [f"echo {shlex.quote(otherwise)}"]), ""])
