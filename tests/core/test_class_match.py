"""Classes are matched by name, and by nothing cleverer."""

from __future__ import annotations

import pytest

from gddctl.core.class_match import match_classes
from gddctl.core.errors import ArtifactError


def test_order_case_spaces_and_underscores_do_not_matter() -> None:
    theirs = ("Sky", "traffic_light", "Traffic Sign", "ROAD")
    assert match_classes(theirs, ("road", "trafficlight", "traffic sign", "sky"), who="t") == (3, 1, 2, 0)


@pytest.mark.parametrize("almost", ["roads", "traffic-light", "Rödi"])
def test_nothing_else_is_guessed(almost: str) -> None:
    with pytest.raises(ArtifactError, match="only in the teacher"):
        match_classes(("sky", almost), ("sky", "traffic light" if "-" in almost else "road"), who="t")


def test_a_mismatch_lists_both_and_what_each_lacks() -> None:
    with pytest.raises(ArtifactError) as caught:
        match_classes(("sky", "road", "boat"), ("road", "sky", "car", "tree"), who="teacher net.pth")
    words = str(caught.value)
    assert "teacher net.pth knows 3 classes (sky, road, boat) and the dataset has 4 (road, sky, car, tree)" in words
    assert "only in the dataset: car, tree" in words and "only in the teacher: boat" in words
    assert "drop_classes" not in words  # it would not help
    assert caught.value.exit_code == 5


def test_more_classes_than_the_dataset_are_dropped_on_demand_alone() -> None:
    theirs, ours = ("background", "road", "sky"), ("sky", "road")
    with pytest.raises(ArtifactError, match=r"only in the dataset: none; only in the teacher: background.*drop_classes: true; the softmax"):
        match_classes(theirs, ours, who="t")
    assert match_classes(theirs, ours, who="t", drop=True) == (2, 1)
    with pytest.raises(ArtifactError, match="only in the dataset: car"):
        match_classes(theirs, (*ours, "car"), who="t", drop=True)  # dropping does not invent


def test_two_names_that_are_the_same_are_no_match() -> None:
    with pytest.raises(ArtifactError, match="Traffic Light, traffic_light"):
        match_classes(("Traffic Light", "traffic_light", "sky"), ("sky", "trafficlight"), who="t")
    with pytest.raises(ArtifactError, match="the dataset: class names that are the same.*: car, Car"):
        match_classes(("car", "sky"), ("car", "sky", "Car"), who="t")
