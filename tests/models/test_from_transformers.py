"""Teachers from transformers: tiny models made from configs, saved, and read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gddctl.core.artifact.network import TransformersNetwork
from gddctl.core.config.external import TransformersSource
from gddctl.core.errors import ArtifactError, ConfigError, EnvironmentMissing, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.models.bring import bring
from gddctl.models.external import build_external
from gddctl.models.from_transformers import read_transformers, stages_of

SPEC = PreprocessSpec(size=(64, 96))
NAMES = {0: "road", 1: "sky", 2: "traffic light"}
OURS = ("sky", "Traffic_Light", "road")
SAME_SUMS = 1e-5  # of logits below 1: sums in another order, and bilinear resizing twice


def test_hidden_states_become_stages_where_four_of_them_could_be() -> None:
    pyramid = [
        torch.zeros(1, channels, 64 // stride, 96 // stride) for channels, stride in ((8, 2), (8, 4), (8, 4), (16, 8), (24, 16), (32, 32))
    ]
    assert [tuple(found.shape[1:]) for found in stages_of(pyramid, (64, 96)).values()] == [(8, 16, 24), (16, 8, 12), (24, 4, 6), (32, 2, 3)]
    assert stages_of(pyramid, (64, 96))["stage1"] is pyramid[2]  # the last of its shape
    rows = [torch.randn(2, 1 + 4 * 6, 5) for _ in range(13)]  # an embedding and twelve layers, with a class token
    found = stages_of(rows, (64, 96))
    for name, layer in zip(("stage1", "stage2", "stage3", "stage4"), (3, 6, 9, 12), strict=True):
        assert torch.equal(found[name], rows[layer][:, 1:].transpose(1, 2).reshape(2, 5, 4, 6))
    assert stages_of(pyramid[-2:], (64, 96)) == {}
    assert stages_of([torch.zeros(1, 23, 5)] * 13, (64, 96)) == {}  # no grid has 23 places
    assert stages_of([], (64, 96)) == {}


def test_without_the_library_the_pip_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(EnvironmentMissing, match=r'gddctl\[teachers\]"'):
        read_transformers(TransformersSource(path=tmp_path))


def configs() -> dict[str, Any]:
    import transformers as hf

    labels = {"id2label": NAMES, "label2id": {name: key for key, name in NAMES.items()}}
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
    names = ["stage1", "stage2", "stage3", "stage4"]
    plain = {
        "hidden_size": 16,
        "num_hidden_layers": 12,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 64,
        "patch_size": 16,
    }
    return {
        "segformer": hf.SegformerConfig(num_attention_heads=[1, 1, 2, 4], decoder_hidden_size=16, **sizes, **labels),
        "upernet": hf.UperNetConfig(
            backbone_config=hf.ConvNextConfig(out_features=names, **sizes), hidden_size=16, auxiliary_in_channels=24, **labels
        ),
        "dpt": hf.DPTConfig(fusion_hidden_size=16, neck_hidden_sizes=[8, 8, 16, 16], backbone_out_indices=[2, 5, 8, 11], **plain, **labels),
        "beit": hf.BeitConfig(out_indices=[3, 5, 7, 11], pool_scales=[1, 2], use_relative_position_bias=True, **plain, **labels),
        "mobilevit": hf.MobileViTConfig(
            hidden_sizes=[16, 20, 24],
            neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 16],
            num_attention_heads=2,
            aspp_out_channels=16,
            initializer_range=0.2,
            **labels,
        ),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Family -> (model, folder)."""
    hf = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'gddctl[teachers]'")
    made: dict[str, Any] = {}

    def make(family: str) -> Any:
        if family not in made:
            torch.manual_seed(0)
            model = hf.AutoModelForSemanticSegmentation.from_config(configs()[family]).eval()
            folder = tmp_path_factory.mktemp("hf") / family
            model.save_pretrained(folder)
            made[family] = model, folder
        return made[family]

    return make


def expected_normalisation(family: str) -> tuple[float, str]:
    """First mean in RGB order and channel order, as the families' image processors document them."""
    return {"segformer": (0.485, "rgb"), "upernet": (0.485, "rgb"), "mobilevit": (0.0, "bgr")}.get(family, (0.5, "rgb"))


@torch.no_grad()
@pytest.mark.parametrize("family", ["segformer", "upernet", "dpt", "beit", "mobilevit"])
def test_a_saved_model_answers_as_the_library_in_our_order(saved: Any, family: str) -> None:
    model, folder = saved(family)
    brought = bring(TransformersSource(path=folder), OURS, SPEC, ((64, 64), (64, 96)))
    images = torch.randn(1, 3, 64, 64)
    theirs = model(pixel_values=images).logits[:, [1, 2, 0]]
    answer = brought.model(images)
    assert float(theirs.abs().max()) > 0
    assert torch.allclose(answer.logits, theirs, atol=SAME_SUMS)
    assert brought.names == tuple(NAMES.values()) and list(answer.features) == ["stage1", "stage2", "stage3", "stage4"]
    assert brought.network.features == {name: feature.shape[1] for name, feature in answer.features.items()}
    assert (brought.preprocess.mean[0], brought.preprocess.channel_order) == expected_normalisation(family)
    assert str(folder) not in brought.network.model_dump_json()
    network = TransformersNetwork.model_validate_json(brought.network.model_dump_json())  # as a card holds it
    again = build_external(network)
    again.body.load_state_dict(brought.model.plain_state_dict())
    assert torch.allclose(again.eval()(images).logits, answer.logits, atol=SAME_SUMS)
    wide = again(torch.randn(1, 3, 64, 96))
    square = family in ("dpt", "beit")  # they know one grid
    assert wide.features["stage4"].shape[-1] * (1 if square else 2) == (4 if square else wide.features["stage4"].shape[-2] * 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = again.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert (low.logits.float() - answer.logits).norm() < 0.05 * answer.logits.norm()  # bf16 keeps 8 bits


def test_the_image_processor_beside_the_weights_is_heeded(saved: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved("segformer")[1], folder)
    processor = folder / "preprocessor_config.json"

    def normalised(**said: Any) -> PreprocessSpec:
        processor.write_text(json.dumps(said))
        return bring(TransformersSource(path=folder), OURS, SPEC, ((64, 96),)).preprocess

    told = normalised(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], do_flip_channel_order=True)
    assert (told.mean, told.std, told.channel_order) == ((0.3, 0.2, 0.1), (0.7, 0.6, 0.5), "bgr")
    bytes_ = normalised(image_mean=[127.5] * 3, image_std=[127.5] * 3, rescale_factor=1.0)
    assert bytes_.mean == pytest.approx((0.5, 0.5, 0.5)) and bytes_.std == pytest.approx((0.5, 0.5, 0.5))
    assert normalised(do_normalize=False).std == (1.0, 1.0, 1.0)
    with pytest.raises(ArtifactError, match="do_rescale is false"):
        normalised(do_rescale=False)
    good: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_flip_channel_order": True}
    for key, value, words in (
        ("rescale_factor", None, "rescale_factor is null, expected a number above 0"),
        ("image_mean", 0.5, "image_mean is 0.5, expected 3 numbers"),
        ("image_mean", [127.5] * 3, r"image_mean is \[127.5, 127.5, 127.5\], expected 3 numbers, each of a grey value"),
        ("image_std", [0.5, 0.0, 0.5], "image_std is .*, expected 3 numbers, each above 0"),
    ):
        with pytest.raises(ArtifactError, match=words):
            normalised(**{**good, key: value})
        # The remedy: what the settings say holds, and the order of channels is still the file's where they do not say it.
        said = TransformersSource(path=folder, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
        for order, wanted in ((None, "bgr"), ("rgb", "rgb")):
            told = bring(said.model_copy(update={"channel_order": order}), OURS, SPEC, ((64, 96),)).preprocess
            assert (told.mean, told.channel_order) == ((0.1, 0.2, 0.3), wanted)


def test_a_family_s_order_of_channels_outlives_mean_and_std_of_the_settings(saved: Any) -> None:
    said = TransformersSource(path=saved("mobilevit")[1], mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    assert bring(said, OURS, SPEC, ((64, 64),)).preprocess.channel_order == "bgr"
    assert bring(said.model_copy(update={"channel_order": "rgb"}), OURS, SPEC, ((64, 64),)).preprocess.channel_order == "rgb"


def test_licence_and_names_come_from_the_folder(saved: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved("segformer")[1], folder)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: research-only\n---\n")
    source = TransformersSource(path=folder)
    assert bring(source, OURS, SPEC, ((64, 96),)).licence == "research-only"
    assert bring(source.model_copy(update={"licence": "MIT"}), OURS, SPEC, ((64, 96),)).licence == "MIT"
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(key): f"LABEL_{key}" for key in range(3)}  # the library's placeholders
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="does not name its 3 classes"):
        bring(source, OURS, SPEC, ((64, 96),))
    assert bring(source, OURS, SPEC, ((64, 96),), tuple(NAMES.values())).names == tuple(NAMES.values())


def test_folders_that_are_no_such_model(saved: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(UsageError, match="no folder with config.json"):
        read_transformers(TransformersSource(path=tmp_path))
    folder = tmp_path / "copy"
    shutil.copytree(saved("segformer")[1], folder)
    source, weights = TransformersSource(path=folder), folder / "model.safetensors"
    state = load_file(weights)

    def refuses(changed: dict[str, torch.Tensor], words: str) -> None:
        save_file(changed, weights, metadata={"format": "pt"})
        with pytest.raises(ArtifactError, match=words):
            read_transformers(source)

    lacking = {key: value for key, value in state.items() if not key.startswith("decode_head.classifier")}
    refuses(lacking, r"not all of this model's \(missing: decode_head\.classifier\.bias")
    refuses({**state, "extra.weight": torch.zeros(1)}, r"unexpected: extra\.weight")
    refuses({**state, "decode_head.classifier.weight": torch.zeros(4, 16, 1, 1)}, "decode_head.classifier.weight|mismatch")
    weights.write_bytes(b"\x00")
    with pytest.raises(ArtifactError, match="does not load it"):
        read_transformers(source)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ArtifactError, match="semantic-segmentation"):
        read_transformers(source)


def test_a_stored_config_that_the_library_does_not_know() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'gddctl[teachers]'")
    network = TransformersNetwork(config={"model_type": "segformed"}, outputs=1, order=(0,), stride=4, features={})
    with pytest.raises(ArtifactError, match="makes no 'segformed'"):
        build_external(network)


@torch.no_grad()
@pytest.mark.parametrize(("family", "half"), [("segformer", torch.float16), ("upernet", torch.bfloat16)])
def test_a_model_saved_in_half_precision_is_a_float32_teacher(saved: Any, tmp_path: Path, family: str, half: torch.dtype) -> None:
    hf = pytest.importorskip("transformers")
    hf.AutoModelForSemanticSegmentation.from_pretrained(saved(family)[1]).to(half).save_pretrained(tmp_path / "half")
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    if "backbone_config" in config:  # nested too, as some versions write it
        config["backbone_config"]["dtype"] = config["backbone_config"]["torch_dtype"] = str(half).removeprefix("torch.")
    assert any(word in config for word in ("dtype", "torch_dtype"))  # the partner: the file does say it
    (tmp_path / "half" / "config.json").write_text(json.dumps(config))
    brought = bring(TransformersSource(path=tmp_path / "half"), OURS, SPEC, ((64, 64),))
    assert isinstance(brought.network, TransformersNetwork) and "dtype" not in brought.network.model_dump_json()
    images = torch.randn(1, 3, 64, 64)
    for network in (
        brought.network,
        brought.network.model_copy(update={"config": {**brought.network.config, "dtype": str(half).removeprefix("torch.")}}),
    ):
        again = build_external(network)
        again.body.load_state_dict(brought.model.plain_state_dict())
        assert {value.dtype for value in again.parameters()} == {torch.float32}
        assert torch.allclose(again.eval()(images).logits, brought.model(images).logits, atol=SAME_SUMS)
