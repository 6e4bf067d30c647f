"""The benchmark that reads logits with cells of other sizes: the network's own where sizes agree, the right one where they do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks.cells import fitted, resized, spread, ways


def test_cells_of_the_deployed_size_are_the_networks_own_reading() -> None:
    logits = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits, size=(120, 160), mode="bilinear", align_corners=False)
    torch.testing.assert_close(spread(logits, (120, 160), ways((120, 160), (8, 10), None)["as deployed"]), expected, atol=1e-5, rtol=0)


def test_cells_as_in_training_put_a_border_where_training_put_it() -> None:
    """Cell 5 lies left of the border in a crop of 136 columns; the same cells in an image of 160 must put it at the same column."""
    trained = F.interpolate(torch.linspace(-5, 3, 9).expand(1, 1, 7, 9), size=(104, 136), mode="bilinear", align_corners=False)
    cells = ways((120, 160), (8, 10), (104, 136))
    assert cells["as in training"] == pytest.approx((104 / 7, 136 / 9))
    assert cells["of the stride"] == pytest.approx((16, 16))
    logits = torch.linspace(-5, 4, 10).expand(1, 1, 8, 10)
    border = int((trained[0, 0, 50] > 0).nonzero()[0])
    assert int((spread(logits, (120, 160), cells["as in training"])[0, 0, 50] > 0).nonzero()[0]) == border
    assert int((spread(logits, (120, 160), cells["as deployed"])[0, 0, 50] > 0).nonzero()[0]) > border + 3


def test_a_grid_holds_what_was_drawn_on_it_and_no_finer_stripes() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = resized(4 * torch.randn(1, 3, 6, 8, generator=generator), torch.empty(1, 3, 96, 128))
    found = fitted(drawn, drawn.softmax(1), (6, 8))
    assert (found.argmax(1) == drawn.argmax(1)).float().mean() > 0.99
    stripes = (torch.arange(128) // 4 % 2).expand(1, 96, 128)  # four columns wide, under cells of 16
    assert (fitted(drawn, stripes, (6, 8)).argmax(1) == stripes).float().mean() < 0.6
