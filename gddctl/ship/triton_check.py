"""``triton/check.py`` of a release: the golden image through a running server, its masks against the expected one."""

from __future__ import annotations

from collections.abc import Iterable

from gddctl.ship.triton_model import TritonModel

_SCRIPT = '''\
#!/usr/bin/env python3
"""Send this release's golden image to a server and compare the masks it gives: check.py HOST:PORT [--token TOKEN] [MODEL ...]

For Triton, KServe, gddctl serve: whatever speaks the Open Inference Protocol over HTTP. Needs numpy, pillow and tritonclient[http].
Leaves with 0 when every model that is served agrees, 3 when one does not, 4 when none is served or the server cannot be reached.
Run in the tests of gddctl against gddctl serve; never against a Triton server.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as http
from PIL import Image
from tritonclient.utils import InferenceServerException

RELEASE = Path(__file__).resolve().parent.parent
# Deploy graphs: the name that a server gives the model -> the file of this release that says how near it must come
SERVED = {served}
RESIZE = {resize!r}


def content(original, size):
    """The part of the network's input, from its top left corner, that shows the image: (height, width)."""
    if RESIZE == "stretch":
        return size
    ratio = min(size[0] / original[0], size[1] / original[1])
    return tuple(min(side, max(1, round(length * ratio))) for side, length in zip(size, original))


def restore(mask, original):
    """(h, w) class ids at the network's size -> at the image's: padding cut off, nearest neighbour."""
    height, width = original
    inner_height, inner_width = content(original, mask.shape)
    rows = (2 * np.arange(height) + 1) * inner_height // (2 * height)  # whose centre it is
    columns = (2 * np.arange(width) + 1) * inner_width // (2 * width)
    return mask[rows][:, columns]


def ask(client, name, image, headers):
    """The mask that the server's model gives, at the network's size."""
    tensor = http.InferInput("image", [1, *image.shape], "UINT8")
    tensor.set_data_from_numpy(image[None], binary_data=True)
    answer = client.infer(name, [tensor], outputs=[http.InferRequestedOutput("mask", binary_data=True)], headers=headers)
    return answer.as_numpy("mask")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: those of this release that the server has")
    parser.add_argument("--token", default=os.environ.get("GDDCTL_TOKEN"), help="bearer token; default: the variable GDDCTL_TOKEN")
    parser.add_argument("--ssl", action="store_true", help="https")
    given = parser.parse_args()
    unknown = [name for name in given.models if name not in SERVED]
    if unknown:
        print(f"error: {{', '.join(unknown)}}: no deploy graph of this release; it has {{', '.join(SERVED)}}", file=sys.stderr)
        return 2
    manifest = json.loads((RELEASE / "manifest.json").read_text(encoding="utf-8"))
    limits = {{row["file"]: row["expect"]["min_agreement"] for row in manifest["models"]}}
    image = np.array(Image.open(RELEASE / manifest["golden"]["network_input"]))
    expected = np.array(Image.open(RELEASE / manifest["golden"]["mask"]))
    headers = {{"Authorization": f"Bearer {{given.token}}"}} if given.token else None
    failed = asked = 0
    try:
        client = http.InferenceServerClient(given.server, ssl=given.ssl, connection_timeout=10, network_timeout=120)
        for name in given.models or SERVED:
            if not client.is_model_ready(name, headers=headers):
                print(f"{{name}}: not served there" if not given.models else f"{{name}}: NOT SERVED")
                failed += bool(given.models)
                continue
            share = float(np.mean(restore(ask(client, name, image, headers), expected.shape) == expected))
            asked, failed = asked + 1, failed + (share < limits[SERVED[name]])
            verdict = "ok" if share >= limits[SERVED[name]] else "DIFFERS"
            print(f"{{name}}: {{100 * share:.4f}} % of the golden mask, at least {{100 * limits[SERVED[name]]:.4f}} %: {{verdict}}")
    except (InferenceServerException, OSError) as error:
        print(f"error: {{given.server}}: {{error}}", file=sys.stderr)
        return 4
    return 3 if failed else 0 if asked else 4


if __name__ == "__main__":
    sys.exit(main())
'''


def check_script(models: Iterable[TritonModel]) -> str | None:
    """``check.py``; None where no deploy graph is served, for the golden mask is a deploy graph's answer."""
    deploy = [model for model in models if model.info.graph == "deploy"]
    sources = {model.name: shipped.path.as_posix() for model in deploy if (shipped := model.source or model.onnx) is not None}
    if not sources:
        return None
    rows = "".join(f"    {name!r}: {file!r},\n" for name, file in sources.items())
    return _SCRIPT.format(served=f"{{\n{rows}}}", resize=deploy[0].info.preprocess.resize)
