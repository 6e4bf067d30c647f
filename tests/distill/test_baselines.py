"""KD, CWD, MGD and DIST put their losses together as published; a combination names its parts apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.methods import Combined, Cwd, Dist, Gdd, Kd, Method, Mgd
from gddctl.distill.losses import channel_kl, class_correlation, pixel_kl
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.mgd import MgdDistiller
from gddctl.models.protocol import FEATURES, Outputs

CLASSES, OWN, WANTED = 3, 4, 6


def outputs(channels: int, size: tuple[int, int], seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return Outputs(
        logits=torch.randn(2, CLASSES, *size, generator=generator),
        features={name: torch.randn(2, channels, *size, generator=generator) for name in FEATURES},
    )


STUDENT, TEACHER = outputs(OWN, (3, 4), 0), outputs(WANTED, (6, 8), 1)  # strides differ
LABELS = torch.randint(0, CLASSES, (2, 48, 64), generator=torch.Generator().manual_seed(2))
LABELS[:, :16] = 255


def at_teachers_size(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(6, 8), mode="bilinear", align_corners=False)


def built(method: Method, own: int = OWN, generator: torch.Generator | None = None) -> nn.Module:
    torch.manual_seed(0)
    channels = [{**dict.fromkeys(FEATURES, count), "logits": CLASSES} for count in (own, WANTED)]
    found = build_distiller(method, channels[0], channels[1], generator=generator)
    assert found is not None
    return found


def values(method: nn.Module, student: Outputs = STUDENT, teacher: Outputs = TEACHER) -> dict[str, float]:
    return {name: term.item() for name, term in method(student, teacher, LABELS).items()}


def test_kd_is_the_divergence_of_the_resized_logits() -> None:
    expected = pixel_kl(at_teachers_size(STUDENT.logits), TEACHER.logits, 1.0).item()
    assert values(built(Kd())) == {"kd": pytest.approx(expected)}
    assert values(built(Kd(weight=3.0)))["kd"] == pytest.approx(3 * expected)
    kept = LABELS[:, ::8, ::8] != 255
    assert values(built(Kd(labelled_only=True)))["kd"] == pytest.approx(
        pixel_kl(at_teachers_size(STUDENT.logits), TEACHER.logits, 1.0, kept).item()
    )


def test_cwd_has_the_published_weights_where_none_is_set() -> None:
    logits = channel_kl(at_teachers_size(STUDENT.logits), TEACHER.logits, 4.0).item()
    assert values(built(Cwd())) == {"cwd": pytest.approx(3 * logits)}
    assert values(built(Cwd(weight=1.0))) == {"cwd": pytest.approx(logits)}
    method = built(Cwd(place="head"))
    project = method.get_submodule("project")
    assert isinstance(project, nn.Conv2d) and project.bias is None and project.kernel_size == (1, 1)
    with torch.no_grad():
        projected = project(at_teachers_size(STUDENT.features["head"]))
    assert values(method) == {"cwd": pytest.approx(50 * channel_kl(projected, TEACHER.features["head"], 4.0).item())}
    assert isinstance(built(Cwd(place="head"), own=WANTED).get_submodule("project"), nn.Identity)


def test_dist_is_both_correlations_by_their_weights() -> None:
    inter, intra = class_correlation(at_teachers_size(STUDENT.logits), TEACHER.logits, 1.0)
    assert values(built(Dist())) == {"dist.inter": pytest.approx(inter.item()), "dist.intra": pytest.approx(intra.item())}
    weighted = values(built(Dist(inter_weight=2.0, intra_weight=0.5)))
    assert weighted == {"dist.inter": pytest.approx(2 * inter.item()), "dist.intra": pytest.approx(0.5 * intra.item())}


def test_mgd_is_the_equation() -> None:
    method = built(Mgd(), generator=torch.Generator().manual_seed(5))
    assert isinstance(method, MgdDistiller) and isinstance(method.align, nn.Conv2d) and method.align.bias is not None
    hidden = torch.rand((2, 1, 6, 8), generator=torch.Generator().manual_seed(5)) < 0.75
    with torch.no_grad():
        aligned = method.align(at_teachers_size(STUDENT.features["stage4"])).masked_fill(hidden, 0)
        first, _, last = method.generator
        generated = last(first(aligned).relu())
    expected = 2e-5 * (generated - TEACHER.features["stage4"]).square().sum().item() / 2
    logits = 3 * channel_kl(at_teachers_size(STUDENT.logits), TEACHER.logits, 4.0).item()
    assert values(method) == {"mgd": pytest.approx(expected), "mgd.logits": pytest.approx(logits)}
    assert values(built(Mgd(logits_weight=0))).keys() == {"mgd"}


def test_mgd_leaves_out_unlabelled_places_where_asked_for() -> None:
    labels = torch.zeros(2, *[4 * side for side in TEACHER.logits.shape[-2:]], dtype=torch.int64)
    labels[:, :, labels.shape[-1] // 2 :] = 255
    half = TEACHER.logits.shape[-1] // 2
    found = []
    for only in (False, True):
        for change in (0.0, 1.0):
            method = built(Mgd(labelled_only=only), generator=torch.Generator().manual_seed(5))
            spoilt = Outputs(TEACHER.logits.clone(), {name: feature.clone() for name, feature in TEACHER.features.items()})
            for answer in (spoilt.logits, spoilt.features["stage4"]):
                answer[..., half:] += change * torch.linspace(0, 1, answer.shape[-1] - half)
            terms: dict[str, Tensor] = method(STUDENT, spoilt, labels)
            found.append({name: term.item() for name, term in terms.items()})
    assert found[2] == found[3] and all(found[0][name] != found[1][name] for name in ("mgd", "mgd.logits"))
    assert found[2]["mgd"] < found[0]["mgd"]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_mgd_hides_the_share_of_places_in_all_channels(share: float) -> None:
    method = built(Mgd(masked=share), generator=torch.Generator().manual_seed(0))
    assert isinstance(method, MgdDistiller)
    mask = method.mask(torch.zeros(4, 6, 64, 64))
    assert mask.shape == (4, 1, 64, 64) and set(mask.flatten().tolist()) <= {0.0, 1.0}
    assert 1 - mask.mean().item() == pytest.approx(share, abs=0.02)  # 16384 draws: standard error 0.004
    assert share == 0 or not torch.equal(mask, method.mask(torch.zeros(4, 6, 64, 64)))


def test_mgd_is_zero_for_an_identity_and_nothing_hidden() -> None:
    method = built(Mgd(masked=0.0, logits_weight=0), own=WANTED)
    assert isinstance(method, MgdDistiller)
    for convolution in (method.generator[0], method.generator[2]):
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        nn.init.dirac_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    same = Outputs(TEACHER.logits, {name: feature.relu() for name, feature in TEACHER.features.items()})
    assert values(method, same, same)["mgd"] == 0
    assert values(method, TEACHER, same)["mgd"] == 0  # the generator's ReLU does what the teacher's did
    assert values(method, same, TEACHER)["mgd"] > 0


# Combinations


def test_a_combination_is_its_parts_side_by_side() -> None:
    parts = (Gdd(noise="none"), Cwd(), Dist())
    found = values(built(Combined(methods=parts)))
    assert found.keys() == {"gdd", "cwd", "dist.inter", "dist.intra"}
    for part in (Cwd(), Dist()):  # those without weights of their own
        assert {name: found[name] for name in values(built(part))} == values(built(part))


def test_the_same_kind_twice_is_numbered() -> None:
    methods = (Cwd(), Cwd(place="head", weight=1.0), Gdd(), Mgd(), Mgd(masked=0.5))
    method = built(Combined(methods=methods))
    assert values(method).keys() == {"cwd_1", "cwd_2", "gdd", "mgd_1", "mgd_1.logits", "mgd_2", "mgd_2.logits"}
    assert values(method)["cwd_1"] == values(built(Cwd()))["cwd"]
    assert method.diagnostics().keys() == {"gdd/noise_gain", "gdd/aligned_std"}  # type: ignore[operator]
    assert {name.split(".")[1] for name, _ in method.named_parameters()} == {"cwd_2", "gdd", "mgd_1", "mgd_2"}
