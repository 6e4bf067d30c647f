"""From ``teacher.external`` to a teacher bundle that is scored, teaches, and leaves its licence in the student's card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME, Card
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import identity_of
from gddctl.core.artifact.network import MmsegNetwork, SmpNetwork
from gddctl.core.config.external import SmpSource
from gddctl.core.config.load import load_config, to_settings
from gddctl.core.config.sections import RunConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.data.open import open_dataset
from gddctl.export.onnx_graph import export_logits
from gddctl.pipeline.importing import _said_names, import_teacher
from gddctl.pipeline.run import _training
from gddctl.pipeline.settings import Flags, external_at, resolve
from gddctl.pipeline.training import bring_teacher, train_one

GDDCTL = Path(sys.executable).with_name("gddctl")
OURS = open_dataset(RunConfig().data, "val").classes.names
SETTINGS: dict[str, Any] = {
    "data": {"preprocess": {"size": [48, 64]}, "synthetic": {"train_images": 6, "val_images": 2, "height": 48, "width": 64}},
    "student": {"encoder": "tu-test_resnet", "output_stride": 32},
    "train": {
        "iterations": 2, "batch_size": 2, "crop": [48, 64], "workers": 0, "val_every": 2, "log_every": 1, "threads": 1, "device": "cpu",
    },
    "distill": {"method": {"kind": "cwd", "place": "stage4", "weight": 1.0}},
}  # fmt: skip


def run_config(external: Mapping[str, Any], **more: Any) -> RunConfig:
    return load_config(None, base={**SETTINGS, "teacher": {"external": external}, **more})


def mmseg_file(folder: Path, names: Sequence[str] = tuple(reversed(OURS)), **meta: Any) -> dict[str, Any]:
    """A PSPNet on ResNet-18 of random weights that names its classes; ours, in reverse."""
    from gddctl.models.mmseg import MmsegNetwork as Network

    torch.manual_seed(0)
    model = Network("pspnet", 18, len(names), aux=True)
    torch.save({"state_dict": model.state_dict(), "meta": {"CLASSES": list(names), **meta}}, folder / "psp.pth")
    return {"kind": "mmseg", "path": str(folder / "psp.pth"), "arch": "pspnet", "depth": 18}


def smp_file(folder: Path, classes: int = len(OURS)) -> dict[str, Any]:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    model = smp.create_model("fpn", "tu-test_resnet", None, classes=classes)
    torch.save(model.state_dict(), folder / "fpn.pth")
    return {"kind": "smp", "path": str(folder / "fpn.pth"), "arch": "fpn", "encoder": "tu-test_resnet"}


def torchvision_file(folder: Path) -> dict[str, Any]:
    nets = pytest.importorskip("torchvision.models.segmentation")
    torch.manual_seed(0)
    torch.save(nets.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(OURS)).state_dict(), folder / "lr.pth")
    return {"kind": "torchvision", "path": str(folder / "lr.pth"), "arch": "lraspp_mobilenet_v3_large", "classes": "dataset"}


def transformers_folder(folder: Path) -> dict[str, Any]:
    hf = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'gddctl[teachers]'")
    torch.manual_seed(0)
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 4], decoder_hidden_size=16,
        id2label=dict(enumerate(reversed(OURS))), label2id={name: index for index, name in enumerate(reversed(OURS))},
    )  # fmt: skip
    hf.SegformerForSemanticSegmentation(config).save_pretrained(folder / "segformer")
    (folder / "segformer" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return {"kind": "transformers", "path": str(folder / "segformer")}


MAKERS = {
    "mmseg": lambda folder: {**mmseg_file(folder), "licence": "Apache-2.0"},
    "smp": lambda folder: {**smp_file(folder), "classes": list(OURS), "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "torchvision": torchvision_file,
    "transformers": transformers_folder,
}
LICENCES = {"mmseg": "Apache-2.0", "smp": "unknown", "torchvision": "unknown", "transformers": "apache-2.0"}


CASES = [("mmseg", "fp32"), ("smp", "fp32"), ("torchvision", "bf16"), ("transformers", "bf16")]


@pytest.mark.parametrize(("kind", "precision"), CASES)
def test_it_is_imported_scored_and_teaches(tmp_path: Path, kind: str, precision: str) -> None:
    external = MAKERS[kind](tmp_path)
    config = run_config(external, train={**SETTINGS["train"], "precision": precision})
    trained = train_one(config, tmp_path / "run", "student", force=False)  # asked for the student alone: its teacher comes first
    assert trained is not None
    teacher, student = read_card(tmp_path / "run" / "teacher"), trained.card
    source = Path(external["path"])
    original = sha256_file(source if source.is_file() else source / "model.safetensors")
    assert teacher.origin is not None and (teacher.origin.kind, teacher.origin.sha256) == (kind, original)
    assert teacher.classes.names == OURS and teacher.licence == LICENCES[kind] and teacher.evaluation is not None
    assert teacher.parameters > 0 and teacher.training.iterations == 0
    assert student.teacher is not None
    assert student.teacher.model_dump() == {"name": source.name, "source": kind, "licence": LICENCES[kind], "sha256": original}
    assert student.training.teacher_weights_sha256 == teacher.weights_sha256
    plain = load_file(tmp_path / "run" / "student" / WEIGHTS_NAME)
    assert not any(key.startswith(("body", "model", "backbone")) for key in plain)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    terms = [row["cwd"] for row in rows if "cwd" in row]
    assert len(terms) == 2 and all(term > 0 for term in terms)


def test_the_bundle_holds_the_published_keys_and_the_order_of_classes(tmp_path: Path) -> None:
    external = mmseg_file(tmp_path)
    bundle = import_teacher(run_config(external), tmp_path / "run")
    theirs = torch.load(external["path"], weights_only=True)["state_dict"]
    ours = load_file(bundle / WEIGHTS_NAME)
    assert ours.keys() == {key for key in theirs if not key.startswith("auxiliary_head")}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    network = read_card(bundle).network
    assert isinstance(network, MmsegNetwork) and network.order == tuple(reversed(range(len(OURS))))
    assert not (tmp_path / "run" / "checkpoints" / "teacher" / "bundle").exists()


def test_eval_in_a_process_of_its_own_and_no_export(tmp_path: Path) -> None:
    external = {**smp_file(tmp_path), "path": "fpn.pth", "classes": "dataset"}  # relative to the file that says it
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**SETTINGS, "teacher": {"external": external}}))
    run = tmp_path / "run"
    trained = train_one(load_config(tmp_path / "c.yaml"), run, "teacher", force=False)
    assert trained is not None and trained.network == "smp-fpn-tu-test_resnet-s4"
    words = [str(GDDCTL), "eval", str(run / "teacher"), "--json"]
    done = subprocess.run(
        words, cwd=tmp_path.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["miou"] == pytest.approx(trained.miou)
    assert json.loads(done.stdout)["next"] == f"gddctl distill --teacher {run / 'teacher'}"  # not export, which is refused below
    with pytest.raises(ArtifactError, match=r"an imported teacher \(smp-fpn-tu-test_resnet-s4\); it is neither exported nor trained on"):
        export_logits(run / "teacher", tmp_path / "x.onnx")


def test_the_score_depends_on_the_order_of_classes(tmp_path: Path) -> None:
    """A network that draws one class everywhere scores on the class that its channel is said to be."""
    external = smp_file(tmp_path)
    state = torch.load(external["path"], weights_only=True)
    state["segmentation_head.0.bias"] = torch.eye(len(OURS))[0] * 1e3
    torch.save(state, external["path"])
    for name in ("road", "sky"):
        names = [name, *(other for other in OURS if other != name)]
        report = read_card(import_teacher(run_config({**external, "classes": names}), tmp_path / name)).evaluation
        assert report is not None and [key for key, value in report["per_class"].items() if value] == [name]


def test_one_checkpoint_understood_otherwise_is_another_teacher(tmp_path: Path) -> None:
    """What is kept by the digest of a teacher's weights (stages, remembered answers) must not outlive a changed order or normalisation."""
    external = {**smp_file(tmp_path), "classes": "dataset"}
    others: list[dict[str, Any]] = [{}, {"classes": [*OURS[1:], OURS[0]]}, {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}]
    bundles = [import_teacher(run_config({**external, **other}), tmp_path / f"run{index}") for index, other in enumerate(others)]
    digests = [identity_of(bundle) for bundle in bundles]
    assert len(set(digests)) == 3
    assert identity_of(import_teacher(run_config(external), tmp_path / "again")) == digests[0]
    states = [load_file(bundle / WEIGHTS_NAME) for bundle in bundles]
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in states[0])  # though the weights are the same


def test_dropping_classes_is_recorded(tmp_path: Path) -> None:
    names = ("boat", *OURS)
    external = {**smp_file(tmp_path, len(names)), "classes": list(names)}
    with pytest.raises(ArtifactError, match="only in the teacher: boat"):
        import_teacher(run_config(external), tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()
    bundle = import_teacher(run_config({**external, "drop_classes": True}), tmp_path / "run")
    origin = read_card(bundle).origin
    assert origin is not None and (origin.dropped, origin.classes) == (("boat",), names)


def test_class_names_by_list_file_or_reference(tmp_path: Path) -> None:
    external = smp_file(tmp_path)
    entries = [{"id": index, "name": name} for index, name in enumerate(OURS)]
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(entries))
    table = open_dataset(RunConfig().data, "val").classes
    for said in ("dataset", "camvid", list(OURS), str(tmp_path / "classes.yaml")):  # the drawn scenes have CamVid's classes
        source = run_config({**external, "classes": said}).teacher.external
        assert source is not None and tuple(_said_names(source, table) or ()) == OURS
    shuffled = [*OURS[1:], OURS[0]]
    card = read_card(import_teacher(run_config({**external, "classes": shuffled}), tmp_path / "run"))
    assert isinstance(card.network, SmpNetwork) and card.network.order == (len(OURS) - 1, *range(len(OURS) - 1))
    with pytest.raises(ConfigError, match="does not name its 11 classes"):
        import_teacher(run_config(external), tmp_path / "run")
    with pytest.raises(ConfigError, match="11 channels of logits.*names 19"):
        import_teacher(run_config({**external, "classes": "cityscapes"}), tmp_path / "run")
    with pytest.raises(UsageError, match=r"none\.yaml: no such file"):
        import_teacher(run_config({**external, "classes": str(tmp_path / "none.yaml")}), tmp_path / "run")


def test_a_run_imports_once_and_a_missing_file_stops_it_at_once(tmp_path: Path) -> None:
    external = {**smp_file(tmp_path), "classes": "dataset"}
    stage = _training(run_config(external), tmp_path, "teacher")
    assert stage.what == f"import the teacher from {external['path']}" and stage.outputs == ("teacher",)
    state = torch.load(external["path"], weights_only=True)
    state["segmentation_head.0.bias"] += 1
    torch.save(state, external["path"])
    assert _training(run_config(external), tmp_path, "teacher").digest != stage.digest  # other weights are another teacher
    gone = run_config({**external, "path": str(tmp_path / "gone.pth")})
    for role in ("teacher", "student"):
        with pytest.raises(UsageError, match=r"teacher\.external\.path: .*gone\.pth: no such file"):
            train_one(gone, tmp_path / "run", role, force=False)
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="a folder without weights"):
        import_teacher(run_config({"kind": "transformers", "path": str(tmp_path / "empty")}), tmp_path / "run")


def test_what_an_import_goes_by_is_part_of_its_stage(tmp_path: Path) -> None:
    plain = smp_file(tmp_path)
    inputs = _training(run_config({**plain, "classes": "dataset"}), tmp_path, "teacher").inputs
    assert "beside" not in inputs  # nothing but the weights: the stage is named as it always was
    (tmp_path / "classes.yaml").write_text("- {id: 0, name: road}\n")
    folder = tmp_path / "net"
    folder.mkdir()
    Path(plain["path"]).rename(folder / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    config = run_config({"kind": "transformers", "path": str(folder), "classes": str(tmp_path / "classes.yaml")})
    seen = {_training(config, tmp_path, "teacher").digest}
    for path in (folder / "config.json", folder / "preprocessor_config.json", tmp_path / "classes.yaml"):
        path.write_text(path.read_text() + " ")
        seen.add(_training(config, tmp_path, "teacher").digest)
    assert len(seen) == 4
    (folder / "notes.txt").write_text("the partner: what an import does not read")
    assert _training(config, tmp_path, "teacher").digest in seen


def test_a_teacher_that_stands_is_of_the_checkpoint_that_lies_there(tmp_path: Path) -> None:
    external = {**smp_file(tmp_path), "classes": "dataset"}
    config, run = run_config(external), tmp_path / "run"
    import_teacher(config, run)
    bring_teacher(config, run, "student")  # the same: nothing to do
    state = torch.load(external["path"], weights_only=True)
    state["segmentation_head.0.bias"] += 1
    torch.save(state, external["path"])
    for role in ("teacher", "student"):
        with pytest.raises(UsageError, match=r"imported from another checkpoint than .*fpn\.pth is now"):
            bring_teacher(config, run, role)
    bring_teacher(config, run, "baseline")  # it has no teacher
    Path(external["path"]).unlink()
    bring_teacher(config, run, "student")  # the bundle holds all that a student needs


def test_under_torchrun_a_student_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="not imported yet.*first: gddctl train"):
        bring_teacher(run_config({"kind": "smp", "path": "x"}), tmp_path / "run", "student")


@pytest.mark.parametrize(
    ("external", "words"),
    [
        ({"kind": "mmseg", "path": "x", "arch": "pspnet", "depth": 19}, r"teacher\.external\.depth"),
        ({"kind": "mmseg", "path": "x", "arch": "pspnet"}, r"teacher\.external\.depth: missing"),
        ({"kind": "mmsegg", "path": "x"}, r"teacher\.external"),
        ({"kind": "smp", "path": "x", "enkoder": "y"}, r"teacher\.external\.enkoder: unknown key; did you mean 'encoder'"),
        ({"kind": "torchvision", "path": "x", "arch": "unet"}, r"teacher\.external\.arch"),
        ({"kind": "smp", "path": "x", "mean": [0.5, 0.5, 0.5]}, "mean and std are set together"),
        ({"kind": "smp", "path": "x", "std": [0.5, 0.5, 0.0], "mean": [0.5, 0.5, 0.5]}, r"teacher\.external\.std"),
    ],
)
def test_settings_that_do_not_fit_are_named(external: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_config(external)


def test_external_stands_alone() -> None:
    external = {"kind": "smp", "path": "x"}
    with pytest.raises(ConfigError, match="no 'bundle' and no 'kind' beside it"):
        load_config(None, base={"teacher": {"external": external, "bundle": "y"}})
    with pytest.raises(ConfigError, match="no 'bundle' and no 'kind' beside it"):
        load_config(None, base={"teacher": {"external": external, "kind": "label_assisted"}})


def test_a_run_without_external_is_still_the_same_run() -> None:
    assert "external" not in to_settings(RunConfig())["teacher"]
    assert "external" in to_settings(run_config({"kind": "smp", "path": "x"}))["teacher"]


def test_paths_are_relative_to_the_file_and_to_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").write_text("teacher: {external: {kind: smp, path: net.pth, classes: names.yaml}}\n")
    external = load_config(tmp_path / "c.yaml").teacher.external
    assert external is not None and (external.path, external.classes) == (tmp_path / "net.pth", tmp_path / "names.yaml")
    monkeypatch.chdir(tmp_path)
    typed = load_config(None, ["teacher.external.kind=smp", "teacher.external.path=net.pth", "teacher.external.classes=dataset"])
    assert typed.teacher.external is not None
    assert (typed.teacher.external.path, typed.teacher.external.classes) == (tmp_path / "net.pth", "dataset")


def test_teacher_flag_takes_folders_that_speak_for_themselves(tmp_path: Path) -> None:
    for name, text in {"hf": '{"model_type": "segformer"}', "smp": '{"_model_class": "Unet"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert external_at(tmp_path) is None
    for name, kind in {"hf": "transformers", "smp": "smp"}.items():
        external = resolve(None, (), Flags(teacher=tmp_path / name)).teacher.external
        assert external is not None and (external.kind, external.path) == (kind, tmp_path / name)
    (tmp_path / "net.pth").touch()
    with pytest.raises(UsageError, match=r"--teacher .*net\.pth: a file.*teacher\.external\.kind=mmseg"):
        resolve(None, (), Flags(teacher=tmp_path / "net.pth"))
    (tmp_path / "c.yaml").write_text(f"teacher: {{bundle: {tmp_path / 'old'}}}\n")
    config = resolve(tmp_path / "c.yaml", (), Flags(teacher=tmp_path / "hf"))
    assert config.teacher.bundle is None and config.teacher.external is not None
    (tmp_path / "d.yaml").write_text(f"teacher: {{external: {{kind: smp, path: {tmp_path / 'x.pth'}}}}}\n")
    given = resolve(tmp_path / "d.yaml", (), Flags(teacher=tmp_path / "old"))
    assert given.teacher.external is None and given.teacher.bundle == tmp_path / "old"


def test_teacher_flag_inherits_nothing_of_the_file_s_teacher(tmp_path: Path) -> None:
    (tmp_path / "smp").mkdir()
    (tmp_path / "smp" / "config.json").write_text('{"_model_class": "Unet"}')
    said = {"arch": "fpn", "classes": ["a", "b"], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "licence": "MIT", "options": {"x": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"teacher": {"external": {"kind": "smp", "path": "x.pth", **said}}}))
    config = resolve(tmp_path / "c.yaml", ("teacher.external.classes=dataset",), Flags(teacher=tmp_path / "smp"))
    assert config.teacher.external == SmpSource(path=tmp_path / "smp", classes="dataset")  # --set still says what is said of it
    kept = resolve(tmp_path / "c.yaml", (), Flags(seed=3)).teacher.external
    assert kept is not None and kept.licence == "MIT"  # the partner: without the flag the file's holds


def test_set_says_kind_and_path_in_any_order(tmp_path: Path) -> None:
    words = [f"teacher.external.path={tmp_path / 'x.pth'}", "teacher.external.arch=pspnet", "teacher.external.depth=18"]
    kind = "teacher.external.kind=mmseg"
    assert load_config(None, [*words, kind]) == load_config(None, [kind, *words])
    other = load_config(None, [kind, *words, "teacher.external.kind=smp", f"teacher.external.path={tmp_path / 'y.pth'}"]).teacher.external
    assert other == SmpSource(path=tmp_path / "y.pth")  # the partner: another kind starts afresh


def test_cards_from_before_there_were_imports_still_read(tmp_path: Path) -> None:
    bundle = import_teacher(run_config({**smp_file(tmp_path), "classes": "dataset"}), tmp_path / "run")
    value = json.loads((bundle / "card.json").read_text())
    value["network"] = {"arch": "pspnet", "encoder": "resnet18", "output_stride": 8, "encoder_weights": "none"}
    for key in ("origin", "teacher"):
        value.pop(key)
    old = Card.model_validate_json(json.dumps(value))
    assert old.origin is None and type(old.network).__name__ == "NetworkConfig"
    (bundle / "card.json").write_text(json.dumps({**value, "network": {**value["network"], "arch": "pspnot"}}))
    with pytest.raises(ArtifactError, match=r"network\.arch: input should be .*pspnot"):
        read_card(bundle)
    (bundle / "card.json").write_text(json.dumps({**value, "network": {"encodr": "resnet18"}}))
    with pytest.raises(ArtifactError, match=r"network\.encodr: unknown key; did you mean 'encoder'"):
        read_card(bundle)
    (bundle / "card.json").write_text(json.dumps({**value, "network": {"kind": "keras"}}))
    with pytest.raises(ArtifactError, match=r"network: .*keras.*'mmseg'"):
        read_card(bundle)
