"""CIRKD's memory: what enters, what leaves, what a resume finds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gddctl.core.config.methods import Cirkd
from gddctl.distill.class_queues import ClassQueues, random_pixels, region_means
from gddctl.distill.losses import pixel_kl
from gddctl.distill.methods.cirkd import CirkdDistiller, cross_image_kl
from gddctl.models.protocol import Outputs
from tests.distill.plain import similarity_kl

CLASSES = 3


def outputs(channels: int, *, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    logits, head = (torch.randn(2, count, 4, 6, generator=generator) for count in (CLASSES, channels))
    return Outputs(logits=logits, features={"head": head})


def labels() -> Tensor:
    drawn = torch.randint(0, 2, (2, 4, 6), generator=torch.Generator().manual_seed(3))  # class 2 is nowhere
    drawn[0, 0] = 255
    return drawn


def distiller(**settings: float) -> CirkdDistiller:
    torch.manual_seed(0)
    small = {"pixel_queue": 40, "region_queue": 5, "pixel_samples": 12, "region_samples": 6, "pixels_per_image": 4}
    return CirkdDistiller(Cirkd.model_validate({**small, **settings}), 5, 7, CLASSES, torch.Generator().manual_seed(1))


def test_a_ring_forgets_the_oldest() -> None:
    queues = ClassQueues(2, 3, 4)
    untouched = queues.vectors[1].clone()
    for value in range(1, 5):  # one more than it holds
        queues.push(torch.full((2, 1, 4), float(value)), torch.tensor([[True], [False]]))
    assert queues.vectors[0, :, 0].tolist() == [4, 2, 3]
    assert queues.heads.tolist() == [1, 0]
    assert torch.equal(queues.vectors[1], untouched)


def test_more_than_a_ring_holds_leaves_the_last() -> None:
    queues = ClassQueues(1, 3, 1)
    values = torch.arange(1.0, 8.0).view(1, 7, 1)
    queues.push(values, torch.tensor([[True, True, False, True, True, True, True]]))  # 1 2 4 5 6 7
    assert queues.vectors[0, :, 0].tolist() == [5, 6, 7] and queues.heads.tolist() == [0]


def test_rings_start_with_unit_vectors_and_a_sample_is_the_same_places_of_each() -> None:
    queues = ClassQueues(4, 10, 8)
    torch.testing.assert_close(queues.vectors.norm(dim=-1), torch.ones(4, 10))
    queues.vectors.copy_(torch.arange(10.0).view(1, 10, 1).expand(4, 10, 8))
    sample = queues.sample(3, torch.Generator().manual_seed(0)).view(4, 3, 8)
    assert all(torch.equal(sample[0], sample[c]) for c in range(4)) and len(set(sample[0, :, 0].tolist())) == 3
    assert queues.sample(99, None).shape == (40, 8)


def test_regions_are_means_of_their_class() -> None:
    features, there = outputs(7).features["head"], labels()
    means, found = region_means(features, there, CLASSES)
    for image in range(2):
        for label in range(2):
            mean = features[image].movedim(0, -1)[there[image] == label].mean(0)
            torch.testing.assert_close(means[label, image], F.normalize(mean, dim=0))
    assert found.tolist() == [[True, True], [True, True], [False, False]]


def test_pixels_are_of_their_class_and_none_twice() -> None:
    features, there = outputs(7).features["head"], labels()
    pixels, valid = random_pixels(features, there, CLASSES, 4, torch.Generator().manual_seed(0))
    assert pixels.shape == (CLASSES, 8, 7) and valid.tolist() == [[True] * 8, [True] * 8, [False] * 8]
    for label in range(2):
        for image in range(2):
            own = {tuple(row) for row in features[image].movedim(0, -1)[there[image] == label].tolist()}
            taken = [tuple(row) for row in pixels[label, 4 * image : 4 * image + 4].tolist()]
            assert set(taken) <= own and len(set(taken)) == 4
    _, valid = random_pixels(features, torch.where(there == 0, 0, 255).index_fill(1, torch.arange(1, 4), 255), CLASSES, 16, None)
    assert 0 < valid.sum() == (there[:, 0] == 0).sum()  # fewer than asked for: the rest are no pixels of the class


def test_the_released_codes_choice_takes_the_maps_first_places() -> None:
    features = outputs(7).features["head"]
    there = torch.full((2, 4, 6), 255)
    there[:, 3, 1:] = 1  # five pixels, in the last row
    pixels, valid = random_pixels(features, there, CLASSES, 4, torch.Generator().manual_seed(0), first_places=True)
    assert valid.tolist() == [[False] * 8, [True] * 8, [False] * 8]
    for image in range(2):
        first = {tuple(row) for row in features[image].flatten(1).T[:5].tolist()}
        assert {tuple(row) for row in pixels[1, 4 * image : 4 * image + 4].tolist()} <= first


def test_a_training_step_fills_the_queues_and_an_evaluation_does_not() -> None:
    method = distiller()
    assert method.pixels is not None and method.regions is not None
    before = {name: value.clone() for name, value in method.named_buffers() if "queue" not in name}
    method.eval()
    method(outputs(5), outputs(7, seed=1), labels())
    assert all(torch.equal(value, dict(method.named_buffers())[name]) for name, value in before.items())
    method.train()
    method(outputs(5), outputs(7, seed=1), labels())
    assert method.pixels.heads.tolist() == [8, 8, 0]  # two images, four pixels each; ignored ones and absent classes none
    assert method.regions.heads.tolist() == [2, 2, 0]
    torch.testing.assert_close(method.regions.vectors.norm(dim=-1), torch.ones(CLASSES, 5))


def test_the_terms_are_the_equation() -> None:
    method = distiller(pixel_weight=0.5, region_weight=0.25).train()
    assert method.project is not None and method.pixels is not None and method.regions is not None
    student, teacher = outputs(5), outputs(7, seed=1)
    terms = method(student, teacher, labels())

    def rows(x: Tensor) -> Tensor:
        return F.normalize(x, dim=1).movedim(1, -1).reshape(-1, x.shape[1])

    with torch.no_grad():
        own, wanted = rows(method.project(student.features["head"])), rows(teacher.features["head"])
    again = torch.Generator().manual_seed(1)
    torch.rand((2, 1, 24), generator=again)  # which pixels entered
    for name, queues, per_class, weight in (("pixels", method.pixels, 12 // CLASSES + 1, 0.5), ("regions", method.regions, 3, 0.25)):
        keys = queues.sample(per_class, again)  # they are as the step left them: it writes before it compares
        expected = weight * similarity_kl(own, wanted, keys, keys, 0.1)[labels().flatten() != 255].mean()
        torch.testing.assert_close(terms[f"cirkd.{name}"], expected)


def test_kd_and_images_are_the_losses_by_their_weights_and_temperatures() -> None:
    method = distiller(kd_weight=2.0, image_weight=0.5, kd_temperature=3.0, temperature=0.2, pixel_weight=0, region_weight=0)
    student, teacher = outputs(5), outputs(7, seed=1)
    terms = method(student, teacher, labels())
    torch.testing.assert_close(terms["cirkd.kd"], 2 * pixel_kl(student.logits, teacher.logits, 3.0))
    expected = 0.5 * cross_image_kl(student.features["head"], teacher.features["head"], 0.2)
    torch.testing.assert_close(terms["cirkd.images"], expected)
    defaults = distiller()(student, teacher, labels())  # as published: weights 1, temperatures 1 and 0.1
    torch.testing.assert_close(defaults["cirkd.kd"], pixel_kl(student.logits, teacher.logits, 1.0))
    torch.testing.assert_close(defaults["cirkd.images"], cross_image_kl(student.features["head"], teacher.features["head"], 0.1))


@pytest.mark.parametrize("pool", [False, True])
def test_unlabelled_pixels_are_left_out_of_kd_and_images_where_asked_for(pool: bool) -> None:
    method = distiller(labelled_only=True, pool=pool, pixel_weight=0, region_weight=0)
    student, teacher = outputs(5), outputs(7, seed=1)
    terms = method(student, teacher, labels())
    torch.testing.assert_close(terms["cirkd.kd"], pixel_kl(student.logits, teacher.logits, 1.0, labels() != 255))
    kept = (labels()[:, ::2, ::2] if pool else labels()) != 255  # nearest neighbour
    own, wanted = student.features["head"], teacher.features["head"]
    torch.testing.assert_close(terms["cirkd.images"], cross_image_kl(own, wanted, 0.1, pool=pool, labelled=kept))
    everywhere = distiller(pool=pool, pixel_weight=0, region_weight=0)(student, teacher, labels())
    assert all(everywhere[name].item() != terms[name].item() for name in terms)


def test_a_term_of_weight_zero_is_left_out_with_all_it_owns() -> None:
    method = distiller(pixel_weight=0, region_weight=0)
    assert not list(method.parameters()) and not list(method.buffers())
    assert set(method(outputs(5), outputs(7), labels())) == {"cirkd.kd", "cirkd.images"}
    assert set(distiller(kd_weight=0, image_weight=0)(outputs(5), outputs(7), labels())) == {"cirkd.pixels", "cirkd.regions"}
