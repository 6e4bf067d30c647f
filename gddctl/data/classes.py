"""Published class lists and palettes: CamVid 11, Cityscapes 19, Pascal VOC 21; the long ones are in ``published``."""

from __future__ import annotations

from gddctl.core.classes import ClassTable, SegClass


def table_of(colors: dict[str, tuple[int, int, int]]) -> ClassTable:
    """A class table from names and RGB colours in the order of the train ids."""
    return ClassTable(classes=tuple(SegClass(name=name, color=color) for name, color in colors.items()))


# SegNet's 11-class release of CamVid; id 11 in its files is void.
CAMVID = table_of(
    {
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "sidewalk": (0, 0, 192),
        "tree": (128, 128, 0),
        "sign": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    }
)
CAMVID_VOID = 11

# The evaluated classes of Cityscapes, cityscapesscripts/helpers/labels.py.
CITYSCAPES = table_of(
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    }
)
CITYSCAPES_LABEL_IDS = 34  # ids 0..33 occur in *_labelIds.png
# Train id k is label id CITYSCAPES_TRAINED[k]; every other label id is ignored.
CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def voc_color(index: int) -> tuple[int, int, int]:
    """The VOC development kit's colour map: bits of the index dealt out to R, G, B from the top down.

    >>> voc_color(15)
    (192, 128, 128)
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit) if 3 * bit + channel < 8 else 0
    return channels[0], channels[1], channels[2]


_VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"
)
VOC = table_of({name: voc_color(index) for index, name in enumerate(_VOC_NAMES.split())})
