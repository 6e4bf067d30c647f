"""GDD beyond its paper: every form against a slow reference written from its description, alone and at several levels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.gdd import GeneratorForm, Normalise
from gddctl.core.config.methods import Combined, Cwd, Gdd
from gddctl.distill.generators import noise_gain
from gddctl.distill.losses import channel_kl, labelled_pixels
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.denoise import GddLoss, PyramidLoss
from gddctl.distill.methods.gdd import GddDistiller
from gddctl.distill.target import FLOOR, Target, orthonormal_rows
from gddctl.models.protocol import Outputs

STUDENT, TEACHER, PROJECTED = 5, 8, 6
EXACT = 1e-9  # float64 through both ways
FORMS: tuple[GeneratorForm, ...] = ("full", "bottleneck", "depthwise")


def slow_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Every output a sum over taps and the inputs of its group; zeros around."""
    _, _, height, width = x.shape
    reach = weight.shape[-1] // 2
    padded = F.pad(x, (reach,) * 4)
    outputs, inputs = weight.shape[:2]
    found = x.new_zeros(x.shape[0], outputs, height, width)
    for o in range(outputs):
        first = (o // (outputs // groups)) * inputs
        for dy, dx in itertools.product(range(weight.shape[-2]), range(weight.shape[-1])):
            window = padded[:, first : first + inputs, dy : dy + height, dx : dx + width]
            found[:, o] += (window * weight[o, :, dy, dx, None, None]).sum(1)
        if bias is not None:
            found[:, o] += bias[o]
    return found


def slow_generator(x: Tensor, generator: nn.Sequential, form: GeneratorForm, width: int, wanted: int) -> Tensor:
    """What the form is said to be, layer by layer; fails where the layers are not those."""
    said = {
        "full": [(wanted, wanted, 3, 1), None, (wanted, wanted, 3, 1)],
        "bottleneck": [(width, width, 3, 1), None, (width, width, 3, 1), (width, wanted, 1, 1)],
        "depthwise": [(width, width, 3, width), (width, width, 1, 1), None, (width, width, 3, width), (width, wanted, 1, 1)],
    }[form]
    for layer, shape in zip(generator, said, strict=True):
        if shape is None:
            x = x.clamp(min=0)
            continue
        assert isinstance(layer, nn.Conv2d)
        assert (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.groups) == shape
        x = slow_convolution(x, layer.weight, layer.bias, layer.groups)
    return x


def slow_target(teacher: Tensor, normalise: Normalise, projection: Tensor | None) -> Tensor:
    """Channel by channel: over its spread, then mixed."""
    channels = [teacher[:, c] for c in range(teacher.shape[1])]
    variances = [float(((x - x.mean()) ** 2).mean()) for x in channels]
    whole = sum(variances) / len(variances)
    spreads = {
        "none": [1.0] * len(channels),
        "feature": [math.sqrt(whole)] * len(channels),
        "channel": [math.sqrt(v + (FLOOR**2) * whole) for v in variances],
    }[normalise]
    scaled = torch.stack([x / spread for x, spread in zip(channels, spreads, strict=True)], dim=1)
    if projection is None:
        return scaled
    mixed = [sum(projection[k, c].double() * scaled[:, c] for c in range(len(channels))) for k in range(projection.shape[0])]
    return torch.stack([x for x in mixed if isinstance(x, Tensor)], dim=1)


def slow_kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 / (N C) * sum over images and channels of KL(softmax(teacher / T) || softmax(student / T))."""
    total = 0.0
    for n, c in itertools.product(range(student.shape[0]), range(student.shape[1])):
        own, wanted = (torch.softmax(x[n, c].flatten() / temperature, 0) for x in (student, teacher))
        total += (wanted * (wanted.log() - own.log())).sum().item()
    return temperature**2 * total / (student.shape[0] * student.shape[1])


def maps(channels: int, seed: int, size: tuple[int, int] = (4, 5), batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.1, 5, channels, dtype=torch.float64)[:, None, None]
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).relu() * scales


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalise", ["none", "channel", "feature"])
@pytest.mark.parametrize("projected", [None, PROJECTED])
def test_every_form_is_what_it_is_said_to_be(form: GeneratorForm, normalise: Normalise, projected: int | None) -> None:
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(3)
    loss = GddLoss(
        STUDENT, TEACHER, weight=2.0, temperature=4.0, noise="channel", noise_std=0.5, relative=True,
        normalise=normalise, target_channels=projected, form=form, reduction=2, generator=random,
    ).double()  # fmt: skip
    student, teacher = maps(STUDENT, 1), maps(TEACHER, 2)
    wanted = projected or TEACHER
    width = wanted if form == "full" else wanted // 2
    assert isinstance(loss.align, nn.Conv2d) and loss.align.out_channels == width
    aligned = slow_convolution(student, loss.align.weight, loss.align.bias, 1)
    noise = torch.randn(3, width, 4, 5, generator=torch.Generator().manual_seed(3)).double()
    spread = torch.stack([image.float().std() for image in aligned])[:, None, None, None].double()
    generated = slow_generator(aligned + 0.5 * spread * noise, loss.generator, form, width, wanted)
    expected = 2.0 * slow_kl(generated, slow_target(teacher, normalise, loss.target.projection), 4.0)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)  # the noise and its spread are float32


def test_the_projection_is_orthonormal_fixed_and_saved() -> None:
    rows = orthonormal_rows(6, 40).double()
    torch.testing.assert_close(rows @ rows.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)  # stored in float32
    target = Target(40, channels=6)
    assert list(target.parameters()) == [] and "projection" in target.state_dict()
    other = Target(40, channels=6)
    other.load_state_dict(target.state_dict())
    feature = torch.randn(2, 40, 3, 4)
    assert torch.equal(other(feature)[0], target(feature)[0])
    assert Target(6, channels=6).projection is None and Target(4, channels=6).channels == 4  # nothing to project


def test_the_projection_keeps_the_mean_spread_so_that_a_weight_carries_over() -> None:
    torch.manual_seed(0)
    feature = torch.randn(4, 512, 16, 16) * torch.linspace(0.2, 3, 512)[:, None, None]
    projected, _ = Target(512, channels=128)(feature)
    before, after = (x.var(dim=(0, 2, 3)).mean().item() for x in (feature, projected))
    assert after == pytest.approx(before, rel=0.1)  # 128 random directions of 512


@pytest.mark.parametrize("normalise", ["channel", "feature"])
def test_normalised_the_weight_does_not_depend_on_the_teachers_scale(normalise: Normalise) -> None:
    torch.manual_seed(0)
    student, teacher = maps(STUDENT, 1), maps(TEACHER, 2)
    plain, normalised = (
        GddLoss(STUDENT, TEACHER, noise="none", normalise=choice).double() for choice in ("none", normalise)
    )  # fmt: skip
    for scale in (1e-3, 30.0):
        assert normalised(student, scale * teacher).item() == pytest.approx(normalised(student, teacher).item(), rel=EXACT)
        assert plain(student, scale * teacher).item() != pytest.approx(plain(student, teacher).item(), rel=0.1)
    offset = torch.arange(TEACHER, dtype=torch.float64)[:, None, None]
    assert normalised(student, teacher + offset).item() == pytest.approx(normalised(student, teacher).item(), rel=1e-6)


def test_normalised_by_channel_a_quiet_channel_counts_but_a_dead_one_is_not_blown_up() -> None:
    feature = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    feature *= torch.tensor([1.0, 0.3, 1e-6, 0.0], dtype=torch.float64)[:, None, None]
    factor = Target(4, normalise="channel").factor(feature)
    assert factor is not None
    spread = (feature * factor[:, None, None]).std(dim=(0, 2, 3))
    assert spread[0].item() == pytest.approx(1, abs=0.05) and spread[1].item() == pytest.approx(1, abs=0.05)
    assert spread[2].item() < 1e-4 and spread[3].item() == 0
    nothing = Target(4, normalise="channel").factor(torch.ones(2, 4, 3, 3))
    assert nothing is not None and torch.equal(nothing, torch.ones(4))


@pytest.mark.parametrize("form", FORMS)
def test_noise_gain_is_that_of_the_first_linear_map(form: GeneratorForm) -> None:
    torch.manual_seed(0)
    loss = GddLoss(6, 6, form=form, reduction=1)
    first = loss.generator[0]
    assert isinstance(first, nn.Conv2d)
    linear = [first] if form != "depthwise" else [first, loss.generator[1]]

    def respond(x: Tensor) -> Tensor:
        for layer in linear:
            assert isinstance(layer, nn.Conv2d)
            x = F.conv2d(x, layer.weight, padding=layer.padding, groups=layer.groups)
        return x

    impulses = torch.zeros(6, 6, 5, 5)
    impulses[range(6), range(6), 2, 2] = 1
    weights = respond(impulses)  # (I, O, 5, 5): what each input does to each output
    assert noise_gain(loss.generator).item() == pytest.approx((weights.sum(0).norm() / weights.norm()).item(), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_only_noise_per_channel_cannot_be_cancelled(form: GeneratorForm) -> None:
    torch.manual_seed(0)
    outputs = {}
    for noise in ("none", "shared", "channel"):
        torch.manual_seed(1)
        loss = GddLoss(6, 6, noise=noise, form=form, reduction=1)
        first = loss.generator[0]
        assert isinstance(first, nn.Conv2d)
        with torch.no_grad():
            if form == "depthwise":  # the same taps for every channel, and a 1x1 that sums to zero
                point = loss.generator[1]
                assert isinstance(point, nn.Conv2d)
                first.weight[:] = first.weight[:1]
                point.weight -= point.weight.mean(dim=1, keepdim=True)
            else:
                first.weight -= first.weight.mean(dim=1, keepdim=True)
        student = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(2))
        outputs[noise] = loss.generator(loss.with_noise(student))
    assert (outputs["shared"] - outputs["none"]).abs().max() < 1e-5
    assert (outputs["channel"] - outputs["none"]).abs().max() > 1e-3


def test_a_pyramid_has_a_generator_for_each_level_and_a_gradient_everywhere() -> None:
    torch.manual_seed(0)
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]  # the outputs of a detector's feature pyramid: raw convolutions, of either sign
    pyramid = PyramidLoss(GddLoss(256, 256, weight=4.0, form="depthwise") for _ in sizes)
    pyramid.levels[0] = GddLoss(256, 256, weight=4.0)  # the published form, 256 to 256 without alignment, at one level
    students = [torch.randn(2, 256, *size, requires_grad=True) for size in sizes]
    teachers = [torch.randn(2, 256, *size, requires_grad=True) for size in sizes]
    torch.manual_seed(1)
    terms = pyramid(students, teachers)
    torch.manual_seed(1)
    alone = [level(*maps) for level, *maps in zip(pyramid.levels, students, teachers, strict=True)]
    assert [term.item() for term in terms] == [term.item() for term in alone]
    torch.autograd.backward(torch.stack(terms).sum())
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in students)
    assert all(x.grad is None for x in teachers)
    assert all(parameter.grad is not None for parameter in pyramid.parameters())
    generators = [{id(parameter) for parameter in level.parameters()} for level in pyramid.levels]
    assert len(set().union(*generators)) == sum(map(len, generators))
    with pytest.raises(ValueError, match="3 student maps, 4 teacher maps; expected 4 of each"):
        pyramid(students[:3], teachers)


def outputs(seed: int, channels: dict[str, int], size: tuple[int, int]) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(2, count, *size, generator=generator) for name, count in channels.items()}
    return Outputs(logits=made.pop("logits"), features=made)


OWN, WANTED = {"stage3": 4, "stage4": 6, "logits": 3}, {"stage3": 5, "stage4": 8, "logits": 3}


def distiller_of(config: Gdd) -> GddDistiller:
    torch.manual_seed(0)
    built = build_distiller(config, OWN, WANTED)
    assert isinstance(built, GddDistiller)
    return built


def test_several_places_are_several_terms_and_the_logits_one_more() -> None:
    config = Gdd(stage=("stage3", "logits"), noise="none", logits_weight=3.0)
    built = distiller_of(config)
    student, teacher = outputs(1, OWN, (4, 5)), outputs(2, WANTED, (4, 5))
    terms = built(student, teacher, torch.zeros(2, 32, 40, dtype=torch.int64))
    assert isinstance(built.loss, PyramidLoss)
    first, second = built.loss.levels
    expected = {
        "gdd.stage3": first(student.features["stage3"], teacher.features["stage3"]),
        "gdd.logits": second(student.logits, teacher.logits),
        "gdd.cwd": 3.0 * channel_kl(student.logits, teacher.logits, 4.0),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-5)
    assert set(built.diagnostics()) == {f"gdd/{place}/{n}" for place in ("stage3", "logits") for n in ("noise_gain", "aligned_std")}
    torch.manual_seed(0)
    both = build_distiller(Combined(methods=(config, Cwd())), OWN, WANTED)
    assert both is not None
    found = both(student, teacher, torch.zeros(2, 32, 40, dtype=torch.int64))
    assert set(found) == {*expected, "cwd"}
    assert found["gdd.cwd"].item() == pytest.approx(found["cwd"].item(), rel=1e-5)  # the same thing by two names


def test_one_place_keeps_the_names_of_its_term_and_its_state() -> None:
    built = distiller_of(Gdd())
    terms = built(outputs(1, OWN, (4, 5)), outputs(2, WANTED, (4, 5)), torch.zeros(2, 32, 40, dtype=torch.int64))
    assert list(terms) == ["gdd"]
    names = [f"loss.{layer}.{kind}" for layer in ("align", "generator.0", "generator.2") for kind in ("weight", "bias")]
    assert list(built.state_dict()) == names  # those of checkpoints from before there were levels


def test_unlabelled_places_are_left_out_only_where_asked_for() -> None:
    labels = torch.zeros(2, 32, 40, dtype=torch.int64)
    labels[:, :16] = 255
    student, teacher = outputs(1, OWN, (4, 5)), outputs(2, WANTED, (4, 5))
    changed = Outputs(teacher.logits.clone(), {name: x.clone() for name, x in teacher.features.items()})
    for x in (changed.logits, *changed.features.values()):
        x[:, :, :2] += 7 * torch.randn(x[:, :, :2].shape)
    for labelled_only in (True, False):
        built = distiller_of(Gdd(noise="none", logits_weight=1.0, labelled_only=labelled_only))
        before, after = (
            {name: term.item() for name, term in built(student, answer, labels).items()} for answer in (teacher, changed)
        )  # fmt: skip
        assert (before == after) == labelled_only
    kept = labelled_pixels(labels, teacher.features["stage4"])
    built = distiller_of(Gdd(noise="none", labelled_only=True))
    loss = built.loss
    assert isinstance(loss, GddLoss)
    generated = loss.generator(loss.align(student.features["stage4"]))
    expected = 145.0 * channel_kl(generated, teacher.features["stage4"], 4.0, kept).item()
    assert built(student, teacher, labels)["gdd"].item() == pytest.approx(expected, rel=1e-5)


def test_half_the_variance_of_what_is_not_generated() -> None:
    # T^2 KL tends to Var(G - F) / 2: of a target at unit spread and a generator that says nothing, half the weight.
    torch.manual_seed(0)
    loss = GddLoss(8, 16, weight=2.0, noise="none", normalise="channel", form="depthwise")
    last = loss.generator[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    value = loss(torch.randn(2, 8, 32, 32), 37 * torch.randn(2, 16, 32, 32)).item()
    assert value == pytest.approx(0.5 * 2.0 / (1 + FLOOR**2), rel=0.02)  # second order in 1 / T
