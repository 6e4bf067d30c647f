"""A finished run folder with made-up numbers, written through the real report classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from gddctl.core.artifact.card import Card, TrainingRecord
from gddctl.core.classes import ClassTable, SegClass, distinct_color
from gddctl.core.config.sections import DataConfig, GatesConfig, NetworkConfig
from gddctl.core.digest import sha256_bytes
from gddctl.core.files import write_bytes, write_json, write_text
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.reports.drift import DRIFTS_NAME, DriftReport, TensorDrift, drifts_to_json
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.parity import ParityReport, Rung
from gddctl.core.reports.pictures import PICTURES_NAME, Layer, Pictures, Scene
from gddctl.core.reports.recovery import BlockLoss, Recovery, Trade
from gddctl.prove.layers import draw_layers
from gddctl.prove.overlay import overlay_strip

NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
COLOURS = (
    (70, 130, 180), (70, 70, 70), (153, 153, 153), (128, 64, 128), (244, 35, 232), (107, 142, 35), (220, 220, 0), (190, 153, 153),
    (0, 0, 142), (220, 20, 60), (119, 11, 32),
)  # fmt: skip
FILES = ("fp32-any.logits", "fp32-any.deploy", "int8-ort-cpu.logits", "int8-ort-cpu.deploy")
BASE = {"teacher": 0.652, "baseline": 0.571, "student": 0.603}
P50 = {"student": 14.2, "fp32-any.logits": 9.6, "fp32-any.deploy": 9.9, "int8-ort-cpu.logits": 3.4, "int8-ort-cpu.deploy": 3.7}
ENVIRONMENT = {"backend": "x", "threads": "2", "cpu": "Made-Up CPU (x86_64): avx2 avx512_vnni", "cpus": "0,1", "numpy": "2.4.6"}
METHOD = {"kind": "gdd", "weight": 20.0, "temperature": 4.0}


def digest(name: str) -> str:
    return sha256_bytes(name.encode())


def class_table(names: tuple[str, ...] = NAMES) -> ClassTable:
    colours = [COLOURS[index] if index < len(COLOURS) else distinct_color(index) for index in range(len(names))]
    return ClassTable(classes=tuple(SegClass(name=name, color=color) for name, color in zip(names, colours, strict=True)))


def make_card(role: Any, names: tuple[str, ...] = NAMES) -> Card:
    student = role == "student"
    return Card(
        name=role,
        role=role,
        network=NetworkConfig(encoder="resnet34" if role == "teacher" else "resnet18", output_stride=16),
        differs_from_paper=("the stem is one 7x7 convolution, the papers' has three of 3x3.",),
        parameters=21_600_000 if role == "teacher" else 11_340_000,
        classes=class_table(names),
        preprocess=PreprocessSpec(size=(128, 192)),
        data=DataConfig(),
        weights_sha256=digest(role),
        config_digest=digest("config"),
        training=TrainingRecord(
            iterations=400, best_iteration=400, seconds=83.0, images_seen=3200, seed=0, devices=1, precision="bf16",
            method=METHOD if student else None, teacher_weights_sha256=digest("teacher") if student else None,
        ),
        gddctl_version="0.1.0",
    )  # fmt: skip


def make_scores(name: str, miou: float, names: tuple[str, ...] = NAMES) -> EvalReport:
    rng = np.random.default_rng(len(name))
    per_class: dict[str, float | None] = {key: float(np.clip(miou + rng.normal(0, 0.15), 0.05, 0.97)) for key in names}
    per_class[names[-1]] = None
    protocol = (
        "single scale, whole image, stretch to 128x192 (area), logits bilinear to label size, then argmax, no flip, full label resolution"
    )
    if name.endswith("deploy"):
        protocol = protocol.replace("logits bilinear to label size, then argmax", "argmax at network size, mask nearest to label size")
    return EvalReport(
        model=name, sha256=digest(name), split="val", images=64, protocol=protocol, miou=miou, aacc=miou + 0.2,
        macc=miou + 0.1, per_class=per_class,
    )  # fmt: skip


def make_rungs() -> list[Rung]:
    gates, rungs = GatesConfig(), []
    pairs = [("student", FILES[0]), (FILES[0], FILES[1]), (FILES[0], FILES[2]), (FILES[2], FILES[3])]
    for reference, candidate in pairs:
        int8, mask = candidate == FILES[2], candidate.endswith("deploy")
        rungs.append(
            Rung(
                reference=reference if reference == "student" else f"student-{reference}",
                candidate=f"student-{candidate}",
                reference_sha256=digest(reference), candidate_sha256=digest(f"student-{candidate}"),
                precision="int8" if int8 else "fp32", images=64, agreement=0.9873 if int8 else 1.0,
                reference_miou=0.603, candidate_miou=0.5995 if int8 else 0.603,
                worst_class="pole", worst_class_delta_points=-1.21 if int8 else 0.0,
                sqnr_db=None if mask else 27.4 if int8 else 118.2, cosine=None if mask else 0.99911 if int8 else 1.0,
                max_abs_diff=None if mask else 1.8 if int8 else 2.1e-5, p999_abs_diff=None if mask else 0.7 if int8 else 9e-6,
                nan=0, limits=gates.int8 if int8 else gates.fp32,
            )
        )  # fmt: skip
    return rungs


def make_latency(folder: Path) -> None:
    rng, rows, raw = np.random.default_rng(1), [], {}
    for index, (name, p50) in enumerate(P50.items()):
        model = name if name == "student" else f"student-{name}"
        samples = p50 * (1 + 0.02 * np.abs(rng.standard_normal(700)) + 0.3 * (rng.random(700) < 0.02) * rng.random(700))
        samples[5] = p50 * 3
        raw[f"inference_{index}"] = samples
        rows.append(
            LatencyRow(
                model=model, sha256=digest(model), backend="torch-cpu" if name == "student" else "onnxruntime-cpu",
                graph="deploy" if name.endswith("deploy") else "logits", precision="int8" if "int8" in name else "fp32", target="any",
                batch=1, input_size=(128, 192), p50_ms=float(np.median(samples)), p90_ms=float(np.percentile(samples, 90)),
                p95_ms=float(np.percentile(samples, 95)), p99_ms=float(np.percentile(samples, 99)), mean_ms=float(samples.mean()),
                std_ms=float(samples.std()), min_ms=float(samples.min()), samples=samples.size, warmup_samples=150, preprocess_p50_ms=0.21,
                rounds_p50_ms=(p50, p50, p50 * 1.2 if name == "student" else p50), miou=0.5995 if "int8" in name else 0.603,
                environment=ENVIRONMENT,
            )
        )  # fmt: skip
    np.savez(folder / "latency.npz", allow_pickle=False, **raw)
    write_json(folder / "latency.json", LatencyReport(tuple(rows), "latency.npz").to_json())


def make_metrics(folder: Path) -> None:
    lines = []
    for stage, top in BASE.items():
        for step in range(10, 401, 10):
            ce = 2.4 * np.exp(-step / 120) + 0.4
            record: dict[str, Any] = {
                "stage": stage,
                "step": step,
                "loss": ce * 1.3,
                "ce": ce,
                "aux": ce * 0.3,
                "lr": 1e-3,
                "grad_norm": 1.0,
            }
            if stage == "student":
                record |= {"gdd/noise_gain": 1e4, "gdd": 1.5 * np.exp(-step / 300), "loss": ce * 1.3 + 1.5 * np.exp(-step / 300)}
            lines.append({**record, "images_per_s": 41.2, "data_wait": 0.013, "seconds": 0.2 * step})
            if step % 100 == 0:
                lines.append(
                    {"stage": stage, "step": step, "val": {"miou": top * (1 - np.exp(-step / 110)), "aacc": 0.8, "macc": 0.6}, "seconds": 1}
                )
    write_text(folder / "metrics.jsonl", "\n".join(map(json.dumps, lines)) + '\n{"stage": "student", "st')


def make_pictures(folder: Path, count: int = 2) -> None:
    for index in range(count):
        rng = np.random.default_rng(index)
        image = np.kron(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
        label = np.kron(rng.integers(0, 11, (8, 12), dtype=np.uint8), np.ones((16, 16), np.uint8))
        masks = [("label", label), ("teacher", label), ("baseline", label), ("student", label), ("student INT8", label)]
        strip = overlay_strip(image, masks, COLOURS)
        write_bytes(folder / "pictures" / f"{index:02d}-scene.png", cv2.imencode(".png", strip[..., ::-1])[1].tobytes())


def make_layers(folder: Path, count: int = 2, names: tuple[str, ...] = NAMES) -> None:
    """The same scenes to flip through."""
    scenes = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image = np.kron(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
        label = np.kron(rng.integers(0, len(names), (8, 12), dtype=np.uint8), np.ones((16, 16), np.uint8))
        label[:16, :16] = 255
        answers = [(title, np.roll(label, 16 * shift, 1)) for shift, title in enumerate(("student", "teacher", "student INT8"))]
        palette = class_table(names).palette
        size, drawn = draw_layers(image, label, answers, palette, changes=[("student", "student INT8")])
        layers = []
        for number, layer in enumerate(drawn):
            name = f"{index:02d}-scene/{number}{layer.suffix}"
            write_bytes(folder / "pictures" / name, layer.data)
            errors = None if layer.errors is None else f"{index:02d}-scene/{number}-errors.png"
            if layer.errors is not None:
                write_bytes(folder / "pictures" / str(errors), layer.errors)
            layers.append(Layer(layer.title, layer.kind, name, errors, layer.right))
        scenes.append(Scene(f"{index:02d}-scene", size, tuple(layers)))
    write_json(folder / "pictures" / PICTURES_NAME, Pictures(tuple(scenes)).to_json())


def make_sensitivity(folder: Path) -> None:
    """What INT8 cost, block by block and tensor by tensor."""
    blocks = tuple(BlockLoss(f"encoder.layer{n}.0", 2, -0.4 / n, 1 - 0.004 / n, 40.0 + n) for n in range(1, 5))
    rung = make_rungs()[2]
    trades = (Trade((), rung, 11.4, 3.4), Trade((blocks[0].block,), rung, 12.9, 3.9))
    recovery = Recovery("ort-cpu", 32, blocks, trades)
    command = ["gddctl", "export", "student", "--sensitivity"]
    write_json(folder / "artifacts" / "student-recovery-ort-cpu.json", {**recovery.to_json(), "command": command})
    tensors = tuple(TensorDrift(f"encoder.relu{n}", "Relu", 45.0 - n, 46.0 - n, 0.1, 0) for n in range(12))
    drift = DriftReport("student-fp32-any.logits", "student-int8-ort-cpu.logits", 2, tensors, 8.0, 12.0, 35.0, 0)
    write_json(folder / DRIFTS_NAME, drifts_to_json([drift]))


def make_ledger(folder: Path) -> None:
    """Stages as a run notes them; the export was done by a version that did not note its command."""
    row = {"digest": "0" * 64, "outputs": {}, "seconds": 12.3, "time": "2026-11-20T14:01:00+0000"}
    command = ["gddctl", "run", "config.yaml", "--out", "my run"]
    stages = {name: {**row, "command": command} for name in ("evaluate", "bench", "parity", "pictures")}
    write_json(folder / "stages.json", {"schema": 1, "stages": {**stages, "export": row}})


def make_artifacts(folder: Path) -> None:
    rows = []
    for name, parent in zip(FILES, (None, FILES[0], FILES[0], FILES[2]), strict=True):
        precision, target = name.rpartition(".")[0].split("-", 1)
        rows.append({
            "file": f"student-{name}.onnx", "sha256": digest(f"student-{name}"), "bytes": 11_400_000 if precision == "int8" else 45_400_000,
            "format": "onnx", "graph": name.rpartition(".")[2], "precision": precision, "target": target,
            "parent_sha256": parent and digest(f"student-{parent}"), "weights_sha256": digest("student"),
            "calibration_sha256": digest("calibration") if precision == "int8" else None,
            "census": {"conv.int8": 25, "conv.float": 1, "batchnorm": 0},
        })  # fmt: skip
    write_json(folder / "artifacts" / "manifest.json", {"schema": 1, "artifacts": rows})


def make_run(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Every file the page reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for role in BASE:
        write_json(folder / role / "card.json", make_card(role, names).model_dump(mode="json"))
        write_bytes(folder / role / "model.safetensors", b"x" * 1000)
    models = {role: make_scores(role, miou, names) for role, miou in BASE.items()}
    models |= {f"student-{name}": make_scores(f"student-{name}", 0.5995 if "int8" in name else 0.603, names) for name in FILES}
    write_json(folder / "eval.json", {"schema": 1, "models": {name: report.to_json() for name, report in models.items()}})
    write_json(folder / "parity.json", ParityReport(tuple(make_rungs())).to_json())
    make_latency(folder)
    make_metrics(folder)
    make_pictures(folder)
    make_layers(folder, names=names)
    make_artifacts(folder)
    make_sensitivity(folder)
    make_ledger(folder)
    write_text(folder / "config.yaml", "name: demo\nseed: 0\ndata:\n  layout: synthetic\n")
    git = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True}
    write_json(folder / "env.json", {
        "time": "2026-11-20T14:00:00+0000", "command": ["gddctl", "run", "--out", "my run"], "gddctl": "0.1.0", "python": "3.11.9",
        "platform": "Linux", "cpus": 2, "packages": {"torch": "2.15.0", "onnxruntime": "1.31.1"}, "git": git, "earlier": [{}],
    })  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole") / "demo")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run folder of the test's own."""
    return Path(shutil.copytree(whole, tmp_path / "demo"))


@pytest.fixture(scope="session")
def made() -> Any:
    """The makers; a fixture, because test folders are no packages."""
    return SimpleNamespace(run=make_run, card=make_card, rungs=make_rungs, scores=make_scores, layers=make_layers, NAMES=NAMES)
