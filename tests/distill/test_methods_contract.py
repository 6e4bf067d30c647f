"""What every distillation method must keep."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from gddctl.core.config.gdd import Noise
from gddctl.core.config.methods import Cirkd, Combined, Cwd, DiffKd, Dist, Gdd, Kd, Method, Mgd, NoMethod
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.errors import ConfigError
from gddctl.distill.class_queues import random_pixels
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.denoise import GddLoss
from gddctl.distill.methods.diffkd import DenoisedPair
from gddctl.distill.methods.mgd import MgdDistiller
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.teacher import FrozenTeacher

CLASSES = 3
CIRKD = Cirkd(pixel_queue=40, region_queue=20, pixel_samples=30, region_samples=15)  # the published ones are thousands
METHODS = [
    Kd(),
    Kd(labelled_only=True),
    Cwd(),
    Cwd(place="head", labelled_only=True),
    Cwd(place="stage4"),
    Mgd(),
    Mgd(logits_weight=0),
    Mgd(labelled_only=True),
    Dist(),
    Dist(labelled_only=True),
    CIRKD,
    Cirkd(pixel_weight=0, region_weight=0, pool=True, feature="stage3"),
    Cirkd(pixel_queue=40, region_queue=20, pixel_samples=30, region_samples=15, labelled_only=True),
    DiffKd(),
    DiffKd(feature=None),
    DiffKd(logits=False, latent=8, feature="stage4"),
    DiffKd(logits_kernel=1, adapter=False),
    DiffKd(denoiser="projector", labelled_only=True),
    Gdd(),
    Gdd(noise="channel"),
    Gdd(noise="none"),
    Gdd(noise_relative=True, noise_std=0.5),
    Gdd(stage="stage3"),
    Gdd(stage=("stage3", "head", "logits"), generator="bottleneck", normalise="feature", labelled_only=True),
    Gdd(preset="fast"),
    Gdd(preset="best", target_channels=32, labelled_only=True, warmup=0.1),
    Combined(methods=(Gdd(), Cwd(), CIRKD)),
]
LR, WEIGHT_DECAY = 0.01, 5e-4  # the recipe's: a bias that the loss cannot see still decays


@pytest.fixture(scope="module")
def networks() -> tuple[Segmenter, FrozenTeacher]:
    torch.manual_seed(0)
    student = build_segmenter(NetworkConfig(encoder="tu-test_resnet", output_stride=16), CLASSES, aux=True)
    teacher = build_segmenter(NetworkConfig(encoder="tu-resnet10t", arch="deeplabv3", output_stride=32), CLASSES, aux=False)
    return student, FrozenTeacher(teacher)


def built(method: Method, networks: tuple[Segmenter, FrozenTeacher], generator: torch.Generator | None = None) -> nn.Module:
    torch.manual_seed(1)
    channels = [{**network.feature_channels, "logits": CLASSES} for network in networks]
    distiller = build_distiller(method, channels[0], channels[1], generator=generator)
    assert distiller is not None
    return distiller


@pytest.fixture(params=METHODS, ids=str)
def method(request: pytest.FixtureRequest) -> Method:
    chosen: Method = request.param
    return chosen


@pytest.fixture
def distiller(method: Method, networks: tuple[Segmenter, FrozenTeacher]) -> nn.Module:
    return built(method, networks)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 64, 96), generator=generator)
    labels[:, :20] = 255
    return Batch(images=images, labels=labels)


def terms_of(distiller: nn.Module, student: Segmenter, teacher: FrozenTeacher) -> Mapping[str, Tensor]:
    terms: Mapping[str, Tensor] = distiller(student(batch().images), teacher(batch()), batch().labels)
    return terms


def total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def test_every_method_of_the_union_is_here() -> None:
    union, *_ = get_args(Method)
    assert {type(method) for method in METHODS} | {NoMethod} == set(get_args(union))


def test_no_method_is_no_distiller(networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    assert build_distiller(NoMethod(), student.feature_channels, teacher.feature_channels) is None


def test_terms_are_finite_scalars_that_reach_the_student(
    method: Method, distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]
) -> None:
    student, teacher = networks
    student.train()
    student.zero_grad()
    terms = terms_of(distiller, student, teacher)
    assert terms
    kinds = {inner.kind for inner in method.methods} if isinstance(method, Combined) else {method.kind}
    assert {name.split(".")[0] for name in terms} == kinds
    assert not any("/" in name for name in terms)  # the report draws those without a slash
    for term in terms.values():
        assert term.shape == () and term.dtype == torch.float32 and torch.isfinite(term) and term.item() > 0
    torch.autograd.backward(total(terms))
    stem = next(student.encoder.parameters()).grad
    assert stem is not None and torch.isfinite(stem).all() and stem.abs().max() > 0


def test_the_teacher_gets_no_gradient_and_does_not_change(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    answers = teacher(batch())
    tensors = [answers.logits, *answers.features.values()]
    for tensor in tensors:
        tensor.requires_grad_()  # even a teacher somebody forgot to freeze
    torch.autograd.backward(total(distiller(student(batch().images), answers, batch().labels)))
    assert all(tensor.grad is None for tensor in tensors)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    after = teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_students_state_dict_is_unchanged(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()  # so that no statistics move
    before = {key: value.clone() for key, value in student.state_dict().items()}
    terms_of(distiller, student, teacher)
    after = student.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    owned = {id(parameter) for parameter in distiller.parameters()}
    assert owned.isdisjoint(id(parameter) for parameter in student.parameters())


def draws(method: Method) -> bool:
    match method:
        case Combined():
            return any(draws(inner) for inner in method.methods)
        case Gdd():
            return method.noise != "none"
        case Cirkd():
            return method.pixel_weight > 0
        case DiffKd():
            return method.denoiser == "diffusion"
        case Mgd():
            return True
        case _:
            return False


def test_same_seed_same_loss(method: Method, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()
    found: list[dict[str, float]] = []
    for seed in (5, 5, 6):
        distiller = built(method, networks)  # anew: some remember
        torch.manual_seed(seed)
        found.append({name: term.item() for name, term in terms_of(distiller, student, teacher).items()})
    assert found[0] == found[1]
    assert (found[0] != found[2]) == draws(method)


def test_a_given_generator_draws_everything(method: Method, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()
    found: list[dict[str, float]] = []
    for _ in range(2):
        distiller = built(method, networks, torch.Generator().manual_seed(9))
        torch.manual_seed(len(found))  # the global state differs, the given one does not
        found.append({name: term.item() for name, term in terms_of(distiller, student, teacher).items()})
    assert found[0] == found[1]


def test_every_trainable_parameter_changes_after_one_step(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.train()
    parameters = dict(distiller.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    torch.autograd.backward(total(terms_of(distiller, student, teacher)))
    assert [name for name, parameter in parameters.items() if parameter.grad is None] == []
    if parameters:
        torch.optim.SGD(parameters.values(), lr=LR, weight_decay=WEIGHT_DECAY).step()
    assert [name for name, parameter in parameters.items() if torch.equal(before[name], parameter)] == []


def test_a_gradient_reaches_every_trainable_parameter(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    """And not weight decay alone. What the published forms cannot see gets the rounding of a zero, not a zero."""
    student, teacher = networks
    student.train()
    torch.autograd.backward(total(terms_of(distiller, student, teacher)))
    unseen = [name for name, parameter in distiller.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unseen == []


class Creation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes on which device random numbers are drawn."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.devices: set[str] = set()

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.randn, torch.ops.aten.rand, torch.ops.aten.randint, torch.ops.aten.bernoulli):
            self.devices.add(found.device.type)
        return found


def _gdd(noise: Noise, x: Tensor) -> object:
    return GddLoss(7, 7, noise=noise, relative=True).with_noise(x)


DRAWERS: dict[str, Callable[[Tensor], object]] = {
    "gdd shared": partial(_gdd, "shared"),
    "gdd channel": partial(_gdd, "channel"),
    "mgd": lambda x: MgdDistiller(Mgd(), 7, 7, None).mask(x),
    "diffkd": lambda x: DenoisedPair(7, 7, 3)._noise(x),
    "cirkd": lambda x: random_pixels(x, torch.zeros(2, 4, 5, dtype=torch.int64, device=x.device), 3, 4, None),
}


@pytest.mark.parametrize("draw", DRAWERS.values(), ids=DRAWERS)
def test_noise_is_drawn_on_the_features_own_device(draw: Callable[[Tensor], object]) -> None:
    with Creation() as seen:
        draw(torch.empty(2, 7, 4, 5, device="meta"))  # a device that computes nothing, and is not the CPU
    assert seen.devices == {"meta"}


def test_it_moves_and_resumes_like_a_module(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()
    fresh = copy.deepcopy(distiller)
    terms_of(distiller, student, teacher)
    fresh.load_state_dict(distiller.state_dict(), strict=True)
    found = []
    for module in (distiller, fresh):
        torch.manual_seed(3)
        found.append({name: term.item() for name, term in terms_of(module, student, teacher).items()})
    assert found[0] == found[1]
    diagnostics = distiller.diagnostics()  # type: ignore[operator]
    assert all(isinstance(value, float) and "/" in name for name, value in diagnostics.items())


def test_a_teacher_in_low_precision_teaches_a_student_in_full(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    answer = teacher(batch())
    low = Outputs(logits=answer.logits.bfloat16(), features={name: feature.bfloat16() for name, feature in answer.features.items()})
    terms = distiller(student(batch().images), low, batch().labels)
    assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values())
    torch.autograd.backward(total(terms))


@pytest.mark.parametrize("magnitude", [1.0, 1e3])
def test_no_nan_under_bf16(distiller: nn.Module, networks: tuple[Segmenter, FrozenTeacher], magnitude: float) -> None:
    student, teacher = networks
    generator = torch.Generator().manual_seed(4)

    def outputs(network: Segmenter | FrozenTeacher, size: tuple[int, int]) -> Outputs:
        def drawn(channels: int) -> Tensor:
            return (magnitude * torch.randn(2, channels, *size, generator=generator)).bfloat16().requires_grad_()

        features = {name: drawn(channels) for name, channels in network.feature_channels.items()}
        return Outputs(logits=drawn(CLASSES), features=features)

    own, wanted = outputs(student, (5, 7)), outputs(teacher, (6, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = distiller(own, wanted, batch().labels)
    assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values()), terms
    torch.autograd.backward(total(terms))
    gradients = [own.logits.grad, *(feature.grad for feature in own.features.values()), *(p.grad for p in distiller.parameters())]
    reached = [gradient for gradient in gradients if gradient is not None]
    assert reached and all(torch.isfinite(gradient).all() for gradient in reached)


def test_a_place_that_one_side_lacks_is_an_error_that_lists_both(method: Method, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, _ = networks
    with pytest.raises(ConfigError, match=r"the student has stage1 \(\d+\), .*, the teacher patches \(7\)"):
        build_distiller(method, {**student.feature_channels, "logits": CLASSES}, {"patches": 7})


@pytest.mark.parametrize("method", [Kd(), Cwd(), Mgd(), Dist(), CIRKD, DiffKd()], ids=str)
def test_logits_of_other_classes_are_an_error_that_names_both(method: Method, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    channels = {**student.feature_channels, "logits": 3}, {**teacher.feature_channels, "logits": 19}
    with pytest.raises(ConfigError, match=r"the student's have 3 channels, the teacher's 19"):
        build_distiller(method, *channels)
