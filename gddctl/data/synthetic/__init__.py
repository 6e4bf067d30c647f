"""Drawn street scenes: no download, eleven classes, the same pixels for the same seed."""

from gddctl.data.synthetic.scenes import SyntheticDataset, draw_scene
from gddctl.data.synthetic.write import write_dataset

__all__ = ["SyntheticDataset", "draw_scene", "write_dataset"]
