"""The steps on a Jetson, and the systemd unit that serves there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.core.files import write_text
from gddctl.ship.choice import engine_name, for_tensorrt
from gddctl.ship.kserve import dns_name
from gddctl.ship.shipped import Shipped
from gddctl.ship.triton_model import choose

HOME = "/opt/gddctl"  # where the steps put everything on the device
UNIT = "gddctl.service"

_STEPS = """\
# On a Jetson

Not run here: no Jetson. The commands of `gddctl` below were parsed by `gddctl` itself, the unit by `systemd-analyze`; the engine was never
built on a Jetson.

For JetPack 6.1 and later (TensorRT 10.3 and later, Python 3.10 and later). JetPack 5 and 6.0 cannot build these engines.

## 1. Copy

The whole folder; nothing in it is needed twice.

```
rsync --archive --partial ./ JETSON:{name}/
```

On the Jetson:

```
sudo mkdir -p {home}
sudo cp -r {name} {home}/release
```

## 2. Install

TensorRT is JetPack's own and comes through the system's packages; pip has none for this device. No torch, no onnx. ONNX Runtime (`cpu`)
runs the golden image below; leave it out where the vendor's own build of it is installed.

```
sudo apt install python3-venv python3-libnvinfer
sudo python3 -m venv --system-site-packages {home}/venv
sudo {home}/venv/bin/pip install "gddctl[cpu,serve]=={version}"
{home}/venv/bin/gddctl doctor
```

`doctor` names TensorRT and the GPU when they are found. Where pip's index has no gddctl, install the wheel that you copied over.

## 3. Verify

Hashes, and the golden image for every file that this device can run:

```
{home}/venv/bin/gddctl verify {home}/release
```

## 4. Build the engine

An engine belongs to one version of TensorRT and one GPU: build it here, and again after every update of JetPack. Minutes; on an 8 GB board
close the desktop first (`sudo systemctl isolate multi-user.target`).

```
sudo {home}/venv/bin/gddctl export {home}/release/{onnx} --trt --workspace 512 --out {home}/engines
```

It must answer like the file it was built from. With labelled images in DIR:

```
{home}/venv/bin/gddctl parity {home}/release/{onnx} {home}/engines/{engine} --data DIR
```

## 5. Measure

The power mode decides the clocks. Note it beside the numbers, let the board warm up, and compare only numbers of one mode.

```
sudo nvpmodel -q
sudo jetson_clocks --show
{home}/venv/bin/gddctl bench {home}/engines/{engine} --seconds 60 --out {bench}
```

`sudo nvpmodel -m MODE` chooses another mode and `sudo jetson_clocks` fixes the clocks at its highest, until the
next boot.

## 6. Serve

{unit} in this folder starts the server at boot, as a user of its own, on this machine's loopback alone.

```
sudo cp {home}/release/jetson/{unit} /etc/systemd/system/{unit}
sudo systemctl daemon-reload
sudo systemctl enable --now {unit}
curl --fail http://127.0.0.1:8000/v2/health/ready
```

{check}To serve other machines, make a token, write `--host 0.0.0.0` into the unit, and restart it:

```
sudo sh -c 'umask 077; echo "GDDCTL_TOKEN=$(openssl rand -hex 32)" > /etc/gddctl.env'
```

After an update of JetPack: build the engine again (step 4), then `sudo systemctl restart {unit}`. An old engine is refused, not run.

A container instead: `docker/Dockerfile.jetson`.
"""

_UNIT = """\
# Not run here: read by systemd-analyze verify, never started on a Jetson. Placed by the steps in JETSON.md.
[Unit]
Description=gddctl serves {name}
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=exec
ExecStart={home}/venv/bin/gddctl serve {home}/engines/{engine} --host 127.0.0.1 --port 8000
EnvironmentFile=-/etc/gddctl.env
DynamicUser=yes
SupplementaryGroups=video render
Restart=on-failure
RestartSec=5
KillSignal=SIGTERM
TimeoutStopSec=40
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""


_CHECK = """\
The golden image through the engine that is served now; leaves with 3 where it misses the expected mask:

```
sudo {home}/venv/bin/pip install "tritonclient[http]"
{home}/venv/bin/python {home}/release/triton/check.py 127.0.0.1:8000
```

"""


def write_jetson(folder: Path, models: Sequence[Shipped], *, name: str, version: str) -> list[Path]:
    """Write ``JETSON.md`` and ``jetson/`` into the release ``folder``; nothing where no file of it suits TensorRT.

    Args:
        folder: the release.
        models: what it ships.
        name: of the student.
        version: gddctl's.
    """
    model = for_tensorrt(models)
    if model is None:
        return []
    engine = engine_name(model)
    words = {"name": dns_name(name), "home": HOME, "version": version, "onnx": model.path, "engine": engine, "unit": UNIT}
    served = {item.name for item in choose(models)[0]}
    check = _CHECK.format(home=HOME) if model.info.graph == "deploy" and engine.removesuffix(".engine") in served else ""
    texts = {
        folder / "JETSON.md": _STEPS.format(bench="~/bench", check=check, **words),
        folder / "jetson" / UNIT: _UNIT.format(**words),
    }
    for path, text in texts.items():
        write_text(path, text)
    return sorted(texts)
