"""KServe manifests of a release: Triton on the repository that ``triton/assemble.sh`` lays out, or ``gddctl serve`` in its own container.

Fields: the CustomResourceDefinition ``inferenceservices.serving.kserve.io`` (v1beta1) and the ClusterServingRuntime ``kserve-tritonserver``
of kserve/kserve, which mounts ``storageUri`` at /mnt/models and starts Triton on it with HTTP on port 8080. A custom predictor's protocol
is told by the variable ``PROTOCOL`` of its container (pkg/apis/serving/v1beta1/predictor_custom.go).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gddctl.core.files import write_text
from gddctl.ship.choice import for_cpu, for_gpu
from gddctl.ship.shipped import Shipped
from gddctl.ship.triton_model import choose

_NAME_LENGTH = 40  # KServe puts more before and behind it, and a name of Kubernetes has 63 characters at most

_TRITON = """\
# Not run here: the fields were compared with KServe's CRD; no cluster has taken this file.
# Triton on the model repository of this release. Before kubectl apply:
#   1. sh triton/assemble.sh REPOSITORY       (and triton/build-plans.sh for plans, on the GPU they will run on)
#   2. copy REPOSITORY to your storage, and write its address at storageUri below
#   3. edit the resources: what is written is a start, not a measurement
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    minReplicas: 1
    model:
      modelFormat:
        name: triton
      runtime: kserve-tritonserver
      protocolVersion: v2
      storageUri: s3://EDIT-ME/{name}/repository  # EDIT: where you put REPOSITORY
{resources}
{probes}
"""

_OWN = """\
# Not run here: the fields were compared with KServe's CRD; no cluster has taken this file.
# gddctl serve in the container of docker/Dockerfile.gpu, the models inside it. Before kubectl apply:
#   1. build the image and push it to your registry, and write its name at image below
#   2. edit the resources: what is written is a start, not a measurement
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}-gddctl
spec:
  predictor:
    minReplicas: 1
    containers:
      - name: kserve-container
        image: EDIT-ME/{name}:{version}  # EDIT: the image that you pushed
        env:
          - name: PROTOCOL
            value: v2
        ports:
          - containerPort: 8000
            protocol: TCP
        securityContext:
          runAsNonRoot: true
          allowPrivilegeEscalation: false
          capabilities:
            drop: [ALL]
{resources}
{probes}
"""


def write_kserve(folder: Path, models: Sequence[Shipped], *, name: str, version: str) -> list[Path]:
    """Write ``kserve/`` of a release and name the files.

    Args:
        folder: the folder.
        models: what the release ships.
        name: of the student.
        version: the tag of the image.
    """
    texts = {}
    if triton := choose(models)[0]:
        gpu = any(model.kind != "KIND_CPU" for model in triton)
        texts["inferenceservice.yaml"] = _TRITON.format(
            name=dns_name(name), resources=_indent(_resources(gpu=gpu), 6), probes=_indent(_probes(8080), 6)
        )
    if gpu_model := for_gpu(models) or for_cpu(models):
        gpu = gpu_model is for_gpu(models)
        texts["inferenceservice-gddctl.yaml"] = _OWN.format(
            name=dns_name(name), version=version, resources=_indent(_resources(gpu=gpu), 8), probes=_indent(_probes(8000), 8)
        )
    for file, text in texts.items():
        write_text(folder / file, text)
    return sorted(folder / file for file in texts)


def dns_name(name: str) -> str:
    """A name that Kubernetes takes (RFC 1123 label).

    >>> dns_name("PSPNet_R18 (CamVid)")
    'pspnet-r18-camvid'
    >>> dns_name("Ж")
    'student'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:_NAME_LENGTH].strip("-") or "student"


def _resources(*, gpu: bool) -> str:
    device = '\n    nvidia.com/gpu: "1"' if gpu else ""
    return f"""\
resources:
  requests:
    cpu: "2"
    memory: 4Gi{device}
  limits:
    cpu: "2"
    memory: 4Gi{device}"""


def _probes(port: int) -> str:
    """Ready means warmed up, with both servers; the startup probe gives that five minutes before liveness is asked."""
    return f"""\
startupProbe:
  httpGet:
    path: /v2/health/ready
    port: {port}
  periodSeconds: 5
  failureThreshold: 60
readinessProbe:
  httpGet:
    path: /v2/health/ready
    port: {port}
  periodSeconds: 5
livenessProbe:
  httpGet:
    path: /v2/health/live
    port: {port}
  periodSeconds: 10"""


def _indent(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())
