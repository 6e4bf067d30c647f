"""What every distillation method must keep."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from gddctl.core.config.methods import Gdd, Method, NoMethod
from gddctl.core.config.sections import NetworkConfig
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.gdd import GddDistiller
from gddctl.distill.methods.protocol import Distiller
from gddctl.models.protocol import Batch
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.teacher import FrozenTeacher

METHODS = [
    Gdd(),
    Gdd(noise="channel"),
    Gdd(noise="none"),
    Gdd(noise_relative=True, noise_std=0.5),
    Gdd(stage="stage3"),
]
LR, WEIGHT_DECAY = 0.01, 5e-4  # the recipe's: a bias that the loss cannot see still decays


@pytest.fixture(scope="module")
def networks() -> tuple[Segmenter, FrozenTeacher]:
    torch.manual_seed(0)
    student = build_segmenter(NetworkConfig(output_stride=16), 3, aux=True)
    teacher = build_segmenter(NetworkConfig(encoder="tu-resnet10t", output_stride=32), 3, aux=False)
    return student, FrozenTeacher(teacher)


@pytest.fixture(params=METHODS, ids=str)
def distiller(request: pytest.FixtureRequest, networks: tuple[Segmenter, FrozenTeacher]) -> GddDistiller:
    torch.manual_seed(1)
    student, teacher = networks
    built = build_distiller(request.param, student.feature_channels, teacher.feature_channels)
    assert built is not None
    return built


def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, 48, 64, generator=generator)
    return Batch(images=images, labels=torch.zeros(2, 48, 64, dtype=torch.int64))


def test_every_method_of_the_union_is_here() -> None:
    union, *_ = get_args(Method)
    assert {type(method) for method in METHODS} | {NoMethod} == set(get_args(union))


def test_no_method_is_no_distiller(networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    assert build_distiller(NoMethod(), student.feature_channels, teacher.feature_channels) is None


def test_terms_are_finite_scalars_that_reach_the_student(distiller: Distiller, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.train()
    student.zero_grad()
    answers = teacher(batch())
    terms = distiller(student(batch().images), answers)
    assert terms
    for term in terms.values():
        assert term.shape == () and torch.isfinite(term) and term.item() > 0
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    stem = student.get_parameter("encoder.conv1.weight").grad
    assert stem is not None and torch.isfinite(stem).all() and stem.abs().max() > 0


def test_the_teacher_gets_no_gradient_and_does_not_change(distiller: Distiller, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    answers = teacher(batch())
    for feature in answers.features.values():
        feature.requires_grad_()  # even a teacher somebody forgot to freeze
    torch.autograd.backward(sum(distiller(student(batch().images), answers).values(), torch.zeros(())))
    assert all(feature.grad is None for feature in answers.features.values())
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    after = teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_students_state_dict_is_unchanged(distiller: GddDistiller, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()  # so that no statistics move
    before = {key: value.clone() for key, value in student.state_dict().items()}
    distiller(student(batch().images), teacher(batch()))
    after = student.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    owned = {id(parameter) for parameter in distiller.parameters()}
    assert owned.isdisjoint(id(parameter) for parameter in student.parameters())


def test_same_seed_same_loss(distiller: Distiller, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()
    found: list[dict[str, float]] = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append({name: term.item() for name, term in distiller(student(batch().images), teacher(batch())).items()})
    assert found[0] == found[1]
    noisy = isinstance(distiller, GddDistiller) and distiller.loss.noise != "none"
    assert (found[0] != found[2]) == noisy


def test_a_given_generator_draws_everything(networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.eval()
    found: list[float] = []
    for state in (torch.Generator().manual_seed(9), torch.Generator().manual_seed(9)):
        torch.manual_seed(0)
        built = build_distiller(Gdd(), student.feature_channels, teacher.feature_channels, generator=state)
        assert built is not None
        torch.manual_seed(len(found))  # the global state differs, the given one does not
        found.append(built(student(batch().images), teacher(batch()))["gdd"].item())
    assert found[0] == found[1]


def test_every_trainable_parameter_changes_after_one_step(distiller: Distiller, networks: tuple[Segmenter, FrozenTeacher]) -> None:
    student, teacher = networks
    student.train()
    parameters = list(distiller.parameters())
    assert parameters
    before = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.SGD(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
    torch.autograd.backward(sum(distiller(student(batch().images), teacher(batch())).values(), torch.zeros(())))
    assert all(parameter.grad is not None for parameter in parameters)
    optimiser.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))


def test_it_moves_and_resumes_like_a_module(distiller: GddDistiller) -> None:
    assert isinstance(distiller, nn.Module)
    assert {name for name, _ in distiller.named_parameters()} == distiller.state_dict().keys()
    assert all(isinstance(value, float) for value in distiller.diagnostics().values())
