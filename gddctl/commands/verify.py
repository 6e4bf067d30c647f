"""``gddctl verify``: is a release whole, and does it answer here as it did where it was made?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import RunDevice, RunDeviceName
from gddctl.commands.output import Json, Output, Quiet, Verbose


def verify(
    release: Annotated[Path, typer.Argument(help="The folder that gddctl ship wrote.")],
    device: RunDevice = RunDeviceName.cpu,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", metavar="FILE", help="Also check the signature, by this OpenSSH public key.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Check every hash, then run the golden image; needs no torch.

    Leaves with 5 where a file was changed, is missing or was added, with 3 where a model misses the golden mask, with 4 where no model
    runs here.
    """
    output = Output(json=json, verbose=verbose, quiet=quiet)
    import logging

    from gddctl.core.errors import EnvironmentMissing, VerdictError
    from gddctl.ship.verify import verify as check

    log = logging.getLogger("gddctl.verify")
    found = check(release, device=device.literal, public_key=public_key, progress=lambda name: log.info("golden image: %s", name))
    rows = [
        [
            item.file,
            item.state.upper() if item.state == "failed" else item.state,
            "-" if item.agreement is None else f"{100 * item.agreement:.4f}",
            "exact" if item.exact else f"{100 * item.least:.4f}",
        ]
        for item in found.models
    ]
    output.table([f"{found.name}, on {device.value}", "verdict", "golden %", "at least"], rows)
    for item in found.models:
        if item.state == "skipped":
            output.say(f"skipped: {item.file}: {item.reason}")
    words = {"good": "signature good", "none": "not signed", "not checked": "signed, not checked: give --public-key"}
    output.say(f"{found.files} files as in the manifest; {words[found.signature]}")
    output.done(found.to_json(), following=None)
    if found.failures:
        raise VerdictError("; ".join(found.failures))
    if not found.ran:
        raise EnvironmentMissing(
            f"{release}: none of its models runs here ({'; '.join(dict.fromkeys(item.reason for item in found.models))})",
            remedy='install a runtime: pip install "gddctl[cpu]", or name the device with --device',
        )
