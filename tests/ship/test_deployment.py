"""What a release says of containers, clusters and a Jetson: read by parsers, held against the release and against gddctl's own help."""

from __future__ import annotations

import configparser
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from gddctl import __version__
from gddctl.ship.choice import engine_name, for_cpu, for_gpu, for_tensorrt
from gddctl.ship.deployment import write_deployment
from gddctl.ship.kserve import dns_name
from gddctl.ship.shipped import Shipped
from tests.commands.conftest import GDDCTL
from tests.conftest import Exported
from tests.ship.making import lay, retold, shipped_of

NOT_RUN = "not run here"


@pytest.fixture(scope="module")
def release(psp: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models for every device. What the INT8 and FP16 files hold does not matter to the texts about them."""
    folder = tmp_path_factory.mktemp("release")
    models = lay(folder, [psp.fp32_deploy, psp.int8_deploy])
    for changes in ({"precision": "fp16"}, {"precision": "int8", "target": "tensorrt"}):
        told = retold(models[0], **changes)
        shutil.copy(psp.fp32_deploy.path, folder / told.path)
        models.append(told)
    write_deployment(folder, models)
    return folder


@functools.cache
def help_of(command: str) -> str:
    done = subprocess.run(
        [GDDCTL, command, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": "/usr/bin"},
    )
    return done.stdout if done.returncode == 0 else ""


def unknown_in(line: list[str]) -> list[str]:
    """The words of a ``gddctl`` command line (without the program) that gddctl's help does not know."""
    text = help_of(line[0])
    if not text:
        return [line[0]]
    return [word for word in line[1:] if word.startswith("--") and not re.search(rf"{re.escape(word.split('=')[0])}(?![\w-])", text)]


def gddctl_lines(text: str) -> list[list[str]]:
    """Every ``gddctl`` command in shell text: its words, without the program."""
    joined = re.sub(r"\\\n\s*#?\s*", " ", text)
    found = []
    for line in joined.splitlines():
        match = re.search(r"(?:^|[\s/=])gddctl ([a-z]+(?:\s.*)?)$", line.split(" #")[0].rstrip("`."))
        if match and not line.lstrip().startswith("Description"):
            found.append(shlex.split(match[1]))
    return found


# Dockerfiles


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, argument), comments and continuation lines taken care of as the Dockerfile reference says."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        if line.strip():
            name, _, argument = line.strip().partition(" ")
            found.append((name, argument.strip()))
    return found


KNOWN = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD", "VOLUME"}


def faults(text: str, release: Path) -> list[str]:
    """What is wrong with a Dockerfile, as far as reading it tells."""
    found = []
    stages: dict[str, list[tuple[str, str]]] = {}
    arguments: set[str] = set()
    stage = ""
    for name, argument in instructions(text):
        if name not in KNOWN:
            found.append(f"unknown instruction {name}")
        if name == "ARG":
            arguments.add(argument.partition("=")[0])
        if name == "FROM":
            image, _, stage = argument.partition(" AS ")
            stages[stage] = []
            if re.search(r"[\w-]+\.[a-z]{2,}/", image):
                found.append(f"a registry's host in {image}")
        if stage:
            stages[stage].append((name, argument))
        if name in ("CMD", "ENTRYPOINT") or (name == "RUN" and argument.startswith("[")):
            words = json.loads(argument)
            if words[0] == "gddctl":
                found += [f"gddctl knows no {word}" for word in unknown_in(words[1:])]
                found += [f"no {word} in the release" for word in words if word.startswith("models/") and not (release / word).is_file()]
        if name == "COPY" and not argument.startswith("--from"):
            found += [f"COPY of {source}, which is not there" for source in argument.split()[:-1] if not (release / source).exists()]
        if name == "RUN":
            found += [
                f"{path} is not in the release" for path in re.findall(r"/release/([\w./-]+)", argument) if not (release / path).is_file()
            ]
    used = {match for _, argument in instructions(text) for match in re.findall(r"\$\{(\w+)\}", argument)} - {"PATH"}
    found += [f"{name} is no ARG" for name in sorted(used - arguments)]
    for stage, body in stages.items():
        if any(name == "CMD" for name, _ in body):
            users = [argument for name, argument in body if name == "USER"]
            if not users or users[-1].split(":")[0] in ("root", "0"):
                found.append(f"{stage} runs as root")
            if not any(name == "HEALTHCHECK" and "/v2/health/ready" in argument for name, argument in body):
                found.append(f"{stage} has no health check")
    return found


@pytest.mark.parametrize("name", ["Dockerfile.gpu", "Dockerfile.jetson"])
def test_a_dockerfile_fits_the_release_and_the_command_line(release: Path, name: str) -> None:
    text = (release / "docker" / name).read_text()
    assert NOT_RUN in text.splitlines()[0].lower()
    assert faults(text, release) == []
    assert f"ARG GDDCTL_VERSION={__version__}" in text
    lines = gddctl_lines("\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#")))
    assert [unknown_in(line) for line in lines] == [[] for _ in lines]
    assert (release / "docker" / f"{name}.dockerignore").is_file()


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint here")
def test_hadolint_finds_nothing(release: Path, tmp_path: Path) -> None:
    def found(path: Path) -> str:
        return subprocess.run(["hadolint", "--no-color", str(path)], capture_output=True, text=True, timeout=120).stdout

    for path in sorted((release / "docker").glob("Dockerfile.*")):
        if path.suffix != ".dockerignore":
            assert found(path) == ""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM ubuntu\nRUN cd /x && sudo ls\n")
    assert "DL" in found(bad), "partner: it does look"


BREAKS = [
    ("COPY . /release/", "COPY missing/ /release/", "COPY of missing/"),
    ("USER 1000:1000", "USER root", "runs as root"),
    ("HEALTHCHECK", "# HEALTHCHECK", "no health check"),
    ('"serve", "', '"serving", "', "gddctl knows no serving"),
    ('"--port"', '"--prot"', "gddctl knows no --prot"),
    ("WORKDIR", "WORKDIRECTORY", "unknown instruction"),
    ("FROM ${", "FROM registry.example.com/${", "a registry's host"),
    ("ARG PIP_NO_INDEX=0\n", "ARG NOTHING=${GONE}\n", "GONE is no ARG"),
]


@pytest.mark.parametrize(("good", "bad", "named"), BREAKS, ids=[item[2] for item in BREAKS])
def test_a_faulty_dockerfile_is_seen(release: Path, good: str, bad: str, named: str) -> None:
    """Partner: every fault that is looked for is found when it is there."""
    text = (release / "docker" / "Dockerfile.gpu").read_text()
    broken = text.replace(good, bad)
    if good == "HEALTHCHECK":
        broken = re.sub(r"HEALTHCHECK.*?\\\n.*?\n", "", text)
    assert broken != text
    assert any(named in fault for fault in faults(broken, release))


def test_an_image_serves_what_suits_it(release: Path) -> None:
    commands = {
        name: [
            json.loads(argument)
            for kind, argument in instructions((release / "docker" / f"Dockerfile.{name}").read_text())
            if kind == "CMD"
        ]
        for name in ("gpu", "jetson")
    }
    triton, gpu = commands["gpu"]
    assert triton[0] == "tritonserver"
    assert gpu[2] == "models/tiny-fp16-any.deploy.onnx" and gpu[-2:] == ["--device", "cuda"]
    (jetson,) = commands["jetson"]
    assert jetson[2] == "/engines/tiny-int8-tensorrt.deploy.engine"


# KServe

# Of inferenceservices.serving.kserve.io, version v1beta1 (kserve/kserve, config/crd/full): what the places used here may hold.
PROBE = {"httpGet": {"path": str, "port": int}, "periodSeconds": int, "failureThreshold": int}
RESOURCES = {"requests": dict, "limits": dict}
SCHEMA: dict[str, Any] = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "predictor": {
            "minReplicas": int,
            "model": {
                "modelFormat": {"name": str}, "runtime": str, "protocolVersion": str, "storageUri": str, "resources": RESOURCES,
                "startupProbe": PROBE, "readinessProbe": PROBE, "livenessProbe": PROBE,
            },
            "containers": [{
                "name": str, "image": str, "env": [{"name": str, "value": str}], "ports": [{"containerPort": int, "protocol": str}],
                "securityContext": {"runAsNonRoot": bool, "allowPrivilegeEscalation": bool, "capabilities": {"drop": list}},
                "resources": RESOURCES, "startupProbe": PROBE, "readinessProbe": PROBE, "livenessProbe": PROBE,
            }],
        }
    },
}  # fmt: skip
REQUIRED = ["apiVersion", "kind", "metadata.name", "spec.predictor"]


def misfits(value: Any, schema: Any, place: str = "") -> list[str]:
    """Where ``value`` is not what ``schema`` allows."""
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{place}: {value!r} is no {schema.__name__}"]
    if isinstance(schema, list):
        return [fault for item in value for fault in misfits(item, schema[0], f"{place}[]")] if isinstance(value, list) else [place]
    if not isinstance(value, dict):
        return [f"{place}: {value!r} is no mapping"]
    unknown = [f"{place}.{key}: unknown" for key in value if key not in schema]
    return unknown + [fault for key in value if key in schema for fault in misfits(value[key], schema[key], f"{place}.{key}")]


def lacking(value: Any) -> list[str]:
    def has(path: str) -> bool:
        here = value
        for key in path.split("."):
            if not isinstance(here, dict) or key not in here:
                return False
            here = here[key]
        return bool(here)

    return [path for path in REQUIRED if not has(path)]


@pytest.mark.parametrize("name", ["inferenceservice.yaml", "inferenceservice-gddctl.yaml"])
def test_a_manifest_has_the_fields_of_kserve(release: Path, name: str) -> None:
    text = (release / "kserve" / name).read_text()
    assert NOT_RUN in text.splitlines()[0].lower()
    (document,) = yaml.safe_load_all(text)
    assert misfits(document, SCHEMA) == [] and lacking(document) == []
    assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
    predictor = document["spec"]["predictor"]
    server = predictor.get("model") or predictor["containers"][0]
    assert {server[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")} == {"/v2/health/ready"}
    assert server["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    edited = [line for line in text.splitlines() if "EDIT-ME" in line]
    assert len(edited) == 1 and "# EDIT" in edited[0], "what the user has to write is marked"


def test_a_wrong_manifest_is_seen(release: Path) -> None:
    """Partner: a misspelt field, a wrong type and a missing field are found."""
    text = (release / "kserve" / "inferenceservice.yaml").read_text()
    assert misfits(yaml.safe_load(text.replace("storageUri", "storageUrl")), SCHEMA) == [".spec.predictor.model.storageUrl: unknown"]
    assert misfits(yaml.safe_load(text.replace("minReplicas: 1", 'minReplicas: "1"')), SCHEMA) != []
    assert lacking(yaml.safe_load(text.replace("predictor:", "predictors:"))) == ["spec.predictor"]


@pytest.mark.parametrize("name", ["PSPNet R18", "x" * 100, "-", "Ärger_1", "a.b-c"])
def test_names_for_a_cluster(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", dns_name(name))


# Jetson


def test_the_steps_on_a_jetson_name_what_is_there(release: Path) -> None:
    text = (release / "JETSON.md").read_text()
    assert NOT_RUN in text.lower()[:400]
    lines = gddctl_lines("\n".join(re.findall(r"```\n(.*?)```", text, flags=re.S)))
    assert [line[0] for line in lines] == ["doctor", "verify", "export", "parity", "bench"]
    assert [unknown_in(line) for line in lines] == [[] for _ in lines]
    for path in re.findall(r"/opt/gddctl/release/([\w./-]+)", text):
        assert (release / path).is_file(), path
    engines = set(re.findall(r"/opt/gddctl/engines/([\w.-]+)", text))
    assert engines == {"tiny-int8-tensorrt.deploy.engine"}


def test_a_command_that_is_not_there_is_seen() -> None:
    """Partner of the two above."""
    assert unknown_in(["deploy"]) == ["deploy"]
    assert unknown_in(["verify", "DIR", "--device", "cpu", "--no-such-option"]) == ["--no-such-option"]
    assert unknown_in(["bench", "--second", "60"]) == ["--second"], "half a name is not a name"
    assert gddctl_lines("sudo /opt/gddctl/venv/bin/gddctl export a.onnx --trt \\\n  --out b") == [
        ["export", "a.onnx", "--trt", "--out", "b"]
    ]


def test_the_unit_starts_the_engine_that_the_steps_build(release: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(release / "jetson" / "gddctl.service")
    command = shlex.split(unit["Service"]["ExecStart"])
    assert unknown_in(command[1:]) == []
    assert PurePosixPath(command[2]).name == "tiny-int8-tensorrt.deploy.engine"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert unit["Service"]["DynamicUser"] == "yes" and unit["Install"]["WantedBy"] == "multi-user.target"


def verify_unit(path: Path, folder: Path) -> list[str]:
    """What systemd itself says of the unit, with a program that is there."""
    text = path.read_text().replace("/opt/gddctl/venv/bin/gddctl", sys.executable)
    copy = folder / path.name
    copy.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=120)
    return [line for line in (done.stdout + done.stderr).splitlines() if path.name in line]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_unit(release: Path, tmp_path: Path) -> None:
    path = release / "jetson" / "gddctl.service"
    assert verify_unit(path, tmp_path) == []
    broken = tmp_path / "broken.service"
    broken.write_text(path.read_text().replace("DynamicUser=yes", "DynamicUsr=yes"))
    (folder := tmp_path / "partner").mkdir()
    assert any("DynamicUsr" in line for line in verify_unit(broken, folder)), "partner: a misspelt key is found"


# Which file


def test_the_file_for_each_device(psp: Exported) -> None:
    base = shipped_of(psp.fp32_deploy)
    logits = retold(shipped_of(psp.fp32), precision="fp16")
    fp16, ort, trt = (
        retold(base, **changes)
        for changes in ({"precision": "fp16"}, {"precision": "int8", "target": "ort-cpu"}, {"precision": "int8", "target": "tensorrt"})
    )
    everything = [logits, base, fp16, ort, trt]
    assert (for_gpu(everything), for_cpu(everything), for_tensorrt(everything)) == (fp16, ort, trt)
    assert (for_gpu([logits, base]), for_cpu([trt]), for_tensorrt([ort])) == (base, None, None)
    assert engine_name(fp16) == "tiny-fp16-tensorrt.deploy.engine"


def test_a_release_without_files_for_a_device_says_nothing_of_it(psp: Exported, tmp_path: Path) -> None:
    model = retold(shipped_of(psp.int8_deploy), precision="int8", target="openvino")
    assert write_deployment(tmp_path / "openvino", [model]) == []
    only_cpu = [shipped_of(psp.int8_deploy)]
    names = {path.name for path in write_deployment(tmp_path / "cpu", only_cpu)}
    assert "JETSON.md" not in names and "Dockerfile.jetson" not in names
    recipe = (tmp_path / "cpu" / "docker" / "Dockerfile.gpu").read_text()
    assert "gddctl[cpu,serve]" in recipe and "--gpus" not in recipe and '"cuda"' not in recipe
    assert "nvidia.com/gpu" not in (tmp_path / "cpu" / "kserve" / "inferenceservice.yaml").read_text()


def test_the_same_models_give_the_same_bytes(psp: Exported, tmp_path: Path) -> None:
    models: list[Shipped] = [shipped_of(psp.fp32_deploy), shipped_of(psp.int8_deploy)]
    first, second = (write_deployment(tmp_path / name, models) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] and first
    assert not any(str(tmp_path) in path.read_text() for path in first)
