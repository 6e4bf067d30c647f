"""``gddctl ship``: a folder that needs nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.output import Json, Output, Quiet, Verbose, percent


def ship(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE|ARTIFACT...",
            help="A bundle: every deploy graph and engine exported from it that is proven. Or files of one student.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The release folder; a new one.")],
    golden: Annotated[
        Path | None,
        typer.Option("--golden", metavar="IMAGE", help="Ship this image as the golden one. Default: a drawn scene, which is nobody's."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Folder with parity.json, latency.json, eval.json. Default: the one the files lie in."),
    ] = None,
    parity: Annotated[
        Path | None, typer.Option("--parity", metavar="FILE", help="What gddctl parity --json printed, besides the run's parity.json.")
    ] = None,
    allow_unproven: Annotated[
        bool, typer.Option("--allow-unproven", help="Also ship files that no parity report proves; the card says which.")
    ] = False,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign with this OpenSSH private key (ssh-keygen -t ed25519 makes one).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move what stands at --out aside instead of refusing it.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Pack models, card, golden image, runners and server files. Leaves with 3 where a file was never proven or failed its gate."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.ship.gather import gather
    from gddctl.ship.release import Wishes
    from gddctl.ship.release import ship as pack
    from gddctl.ship.unproven import without_unproven

    cargo = gather(sources, run=run, parity=parity)
    everything = sources[0].is_dir() and not allow_unproven  # nobody named these files one by one
    cargo, behind = without_unproven(cargo) if everything else (cargo, ())
    release = pack(cargo, out, Wishes(golden=golden, key=sign, allow_unproven=allow_unproven, force=force))
    rows = [
        [row.file, row.precision, row.target, percent(row.expect.measured), percent(row.expect.min_agreement), "yes" if row.proof else "NO"]
        for row in release.models
    ]
    output.table([f"in {out}", "holds", "for", "golden %", "at least", "proven"], rows)
    output.say(f"{len(release.files)} files, {sum(row.bytes for row in release.files) / 1e6:.1f} MB")
    output.done(
        {"folder": str(out), "left_out": [item.path.name for item in behind], **release.model_dump(mode="json")},
        following=f"gddctl verify {shlex.quote(str(out))}",
    )
