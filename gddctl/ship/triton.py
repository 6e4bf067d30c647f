"""The Triton part of a release: one configuration per model, a script that lays out the repository, one that builds plans, how to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.core.files import write_text
from gddctl.ship.shipped import Shipped
from gddctl.ship.triton_check import check_script
from gddctl.ship.triton_config import config_text
from gddctl.ship.triton_model import LeftOut, TritonModel, choose
from gddctl.ship.triton_scripts import assemble_script, build_script

_CHECK = """\
## Does it answer right?

Send the golden image and compare (needs numpy, pillow and `tritonclient[http]`):

```
python triton/check.py localhost:8000
```

It leaves with 3 where a mask agrees less with the expected one than `manifest.json` asks for. It speaks the Open Inference Protocol, so it
checks `gddctl serve` as well.
"""

_README = """\
# Triton Inference Server

Not run here: the configurations were parsed into Triton's own message and compared with the model files, the scripts were run, but no
Triton server has loaded the result.

| model | backend | where | batches | file |
|---|---|---|---|---|
{rows}
{left}
The model files stay where they are in this release; nothing here holds them twice. Lay out a model repository from them, anywhere outside
this folder, and start Triton on it:

```
sh triton/assemble.sh {repository}
tritonserver --model-repository={repository}
```

Hard links are made where both lie on one disk, copies elsewhere; every file's SHA-256 is checked. To serve fewer models, remove their
folders from the repository, or start Triton with `--model-control-mode=explicit --load-model=NAME`.

## Plans

A TensorRT plan runs on the version of TensorRT that built it and on its kind of GPU. Build them with the TensorRT of your Triton image, on
the GPU they will run on: NVIDIA's TensorRT image of the same release as the Triton image has `trtexec`.

```
sh triton/build-plans.sh {repository}
```

Run it before `assemble.sh` where this release holds plans of another TensorRT; what stands in the repository is left alone.

{check}
## Tuning

`config.pbtxt` says how many instances there are, how long a request waits for company and how many may wait. Measure with `perf_analyzer`
before changing them. On a CPU, `intra_op_thread_count` is the number of cores the server may use; in a container write it down.
"""


def write_triton(folder: Path, models: Sequence[Shipped]) -> list[Path]:
    """Write ``folder`` (``triton/`` of a release) and name the files. Nothing is written where Triton serves none of ``models``.

    Raises:
        RunFailed: the disk is full or not writable.
    """
    chosen, left = choose(models)
    if not chosen:
        return []
    texts = {folder / "models" / model.name / "config.pbtxt": config_text(model) for model in chosen}
    scripts = {folder / "assemble.sh": assemble_script(chosen), folder / "build-plans.sh": build_script(chosen)}
    if (check := check_script(chosen)) is not None:
        scripts[folder / "check.py"] = check
    texts |= scripts
    texts[folder / "README.md"] = readme(chosen, left)
    for path, text in texts.items():
        write_text(path, text)
    for path in scripts:
        path.chmod(0o755)
    return sorted(texts)


def readme(chosen: Sequence[TritonModel], left: Sequence[LeftOut]) -> str:
    """``README.md``: which models there are, and the steps."""
    rows = "\n".join(
        f"| {model.name} | {model.platform} | {_where(model)} | {model.batches.smallest} to {model.batches.largest} | {_file(model)} |"
        for model in chosen
    )
    words = "".join(f"- `{item.file}` is not served by Triton: {item.reason}.\n" for item in left)
    return _README.format(
        rows=rows, left=f"\n{words}" if words else "", repository="/srv/models", check=_CHECK if check_script(chosen) else ""
    )


def _where(model: TritonModel) -> str:
    return {"KIND_CPU": "CPU", "KIND_GPU": "GPU", "KIND_AUTO": "GPU, else CPU"}[model.kind]


def _file(model: TritonModel) -> str:
    if model.source is not None:
        return f"`{model.source.path}`"
    return f"built from `{model.onnx.path}`" if model.onnx is not None else "n/a"
