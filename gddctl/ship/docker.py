"""Container recipes of a release: a datacenter GPU (``gddctl serve``, or Triton) and a Jetson. What is in the image is an argument.

Image names stand without a registry's host: which one holds them is the builder's to say, with ``--build-arg``. Packages come from pip's
usual index, or from a folder of wheels that the builder names, outside the release, which must stay as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.core.files import write_text
from gddctl.ship.choice import engine_name, for_cpu, for_gpu, for_tensorrt
from gddctl.ship.shipped import Shipped
from gddctl.ship.triton_model import choose

PYTHON_IMAGE = "python:3.12-slim-bookworm"
TRITON_IMAGE = "nvidia/tritonserver:25.09-py3"
L4T_IMAGE = "nvidia/l4t-jetpack:r36.4.0"  # JetPack 6.1: TensorRT 10.3, Python 3.10
ONNXRUNTIME = "1.31.1"  # what gddctl's own tests run

_HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"

_TRITON = """
# --- Triton, on a repository laid out from this release; needs BuildKit:  docker build --target triton ...
FROM ${TRITON_IMAGE} AS triton
RUN --mount=type=bind,target=/release sh /release/triton/assemble.sh /models
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \\
  CMD ["curl", "--fail", "--silent", "http://127.0.0.1:8000/v2/health/ready"]
CMD ["tritonserver", "--model-repository=/models"]
"""

_GPU = """\
# Not run here: no container engine. Every instruction was read and compared with this release and with gddctl's own help.
# For {what}. From the top of the release:
#   docker build --file docker/Dockerfile.gpu --tag {tag} .
#   docker run --rm {gpus}--publish 127.0.0.1:8000:8000 {tag}
# The server answers whoever reaches the port: publish it beyond this machine with a token only
# (--env GDDCTL_TOKEN=..., and then --publish 8000:8000).
# Where pip's index has no gddctl, or there is no network: --build-context wheels=FOLDER of wheels (and --build-arg PIP_NO_INDEX=1).
ARG PYTHON_IMAGE={python_image}
{triton_arg}{triton}
# --- gddctl serve, torch-free
FROM ${{PYTHON_IMAGE}} AS wheels

FROM ${{PYTHON_IMAGE}} AS serve
ARG GDDCTL_VERSION={version}
ARG ONNXRUNTIME_VERSION={onnxruntime}
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \\
  NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN groupadd --gid 1000 gddctl && useradd --uid 1000 --gid 1000 --create-home gddctl
ARG PIP_NO_INDEX=0
RUN --mount=type=bind,from=wheels,target=/wheels \\
  python -m pip install --find-links /wheels "gddctl[{extra},serve]==${{GDDCTL_VERSION}}" "{package}==${{ONNXRUNTIME_VERSION}}"
COPY . /release/
USER 1000:1000
WORKDIR /release
RUN ["gddctl", "verify", "."]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \\
  CMD ["python", "-c", "{health}"]
CMD ["gddctl", "serve", "{model}", "--host", "0.0.0.0", "--port", "8000"{device}]
"""

_JETSON = """\
# Not run here: no Jetson and no container engine. Every instruction was read and compared with this release and with gddctl's own help.
# For a Jetson Orin with JetPack 6.1 or 6.2 (L4T 36.4, Python 3.10). TensorRT is the image's own: pip brings none. From the top of the
# release, on the Jetson:
#   docker build --file docker/Dockerfile.jetson --tag {tag} .
# Build the engine once, on this device, into a volume; then serve it:
#   docker run --rm --runtime nvidia --group-add video --volume gddctl-engines:/engines {tag} \\
#     gddctl export {onnx} --trt --workspace 512 --out /engines
#   docker run --rm --runtime nvidia --group-add video --volume gddctl-engines:/engines --publish 127.0.0.1:8000:8000 {tag}
# After an update of JetPack (another TensorRT) build the image on its L4T_IMAGE and the engine anew.
# Where pip's index has no gddctl, or there is no network: --build-context wheels=FOLDER of wheels (and --build-arg PIP_NO_INDEX=1).
ARG L4T_IMAGE={l4t_image}
FROM ${{L4T_IMAGE}} AS wheels

FROM ${{L4T_IMAGE}} AS serve
ARG GDDCTL_VERSION={version}
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
# The versions are those of the image's own JetPack repository; it holds one of each.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip python3-venv python3-libnvinfer \\
  && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 gddctl && useradd --uid 1000 --gid 1000 --groups video --create-home gddctl \\
  && mkdir /engines && chown 1000:1000 /engines
# --system-site-packages: the vendor's tensorrt module, for which there is no wheel for this device.
RUN python3 -m venv --system-site-packages /opt/gddctl
ARG PIP_NO_INDEX=0
# ONNX Runtime runs the golden image below; engines do without. The vendor's build for this JetPack instead: its wheel in the folder of
# wheels, and --build-arg ONNXRUNTIME=/wheels/NAME.whl
ARG ONNXRUNTIME=onnxruntime
RUN --mount=type=bind,from=wheels,target=/wheels \\
  /opt/gddctl/bin/python -m pip install --find-links /wheels "gddctl[serve]==${{GDDCTL_VERSION}}" "${{ONNXRUNTIME}}"
ENV PATH=/opt/gddctl/bin:${{PATH}}
COPY . /release/
USER 1000:1000
WORKDIR /release
RUN ["gddctl", "verify", "."]
VOLUME /engines
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \\
  CMD ["python3", "-c", "{health}"]
CMD ["gddctl", "serve", "/engines/{engine}", "--host", "0.0.0.0", "--port", "8000"]
"""

_IGNORE = """\
# Read by BuildKit beside its Dockerfile: what the image does not need.
.git
**/__pycache__
**/*.tmp-*
"""


def write_docker(folder: Path, models: Sequence[Shipped], *, tag: str, version: str) -> list[Path]:
    """Write ``docker/`` of a release and name the files. A recipe that no file of the release suits is left out.

    Args:
        folder: the folder.
        models: what the release ships.
        tag: what the images are called.
        version: gddctl's.
    """
    recipes = {"gpu": gpu_recipe(models, tag=tag, version=version), "jetson": jetson_recipe(models, tag=tag, version=version)}
    texts = {f"Dockerfile.{name}": text for name, text in recipes.items() if text is not None}
    texts |= {f"{name}.dockerignore": _IGNORE for name in list(texts)}
    for file, text in texts.items():
        write_text(folder / file, text)
    return sorted(folder / file for file in texts)


def gpu_recipe(models: Sequence[Shipped], *, tag: str, version: str) -> str | None:
    """``Dockerfile.gpu``; a release with nothing for ONNX Runtime on a GPU gets the same image for a CPU, and it says so."""
    on_gpu, on_cpu = for_gpu(models), for_cpu(models)
    model = on_gpu or on_cpu
    if model is None:
        return None
    triton = any(item.source is not None for item in choose(models)[0])
    return _GPU.format(
        what="a datacenter GPU" if on_gpu else "a CPU: this release has nothing that ONNX Runtime runs on a GPU as it was proven",
        gpus="--gpus all " if on_gpu else "",
        tag=tag,
        python_image=PYTHON_IMAGE,
        triton_arg=f"ARG TRITON_IMAGE={TRITON_IMAGE}\n" if triton else "",
        triton=_TRITON if triton else "",
        version=version,
        onnxruntime=ONNXRUNTIME,
        extra="gpu" if on_gpu else "cpu",
        package="onnxruntime-gpu" if on_gpu else "onnxruntime",
        health=_HEALTH,
        model=model.path,
        device=', "--device", "cuda"' if on_gpu else "",
    )


def jetson_recipe(models: Sequence[Shipped], *, tag: str, version: str) -> str | None:
    """``Dockerfile.jetson``; None where no file of the release is one that TensorRT builds an engine from."""
    model = for_tensorrt(models)
    if model is None:
        return None
    return _JETSON.format(tag=tag, l4t_image=L4T_IMAGE, version=version, onnx=model.path, engine=engine_name(model), health=_HEALTH)
