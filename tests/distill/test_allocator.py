"""Freed memory is kept while training, and given back afterwards."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

TAKEN, ROOM = 512, 128  # MiB: of tensors that come and go; for whatever else a process does meanwhile
SCRIPT = """
import json, resource
from contextlib import suppress
from pathlib import Path
import torch
from gddctl.distill.allocator import freed_memory_kept

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

def come_and_go():  # tensors of a size that every glibc can take from its heap
    tensors = [torch.ones(4 * 2**20) for _ in range(32)]
    assert resident() > start + 500
    del tensors
    return resident() - start

torch.ones(10)
start = resident()
found = {"without": come_and_go()}
with freed_memory_kept():
    found["within"] = come_and_go()
found["after"] = resident() - start
with suppress(ValueError), freed_memory_kept():
    found["within, again"] = come_and_go()
    raise ValueError
found["after an error"] = resident() - start
print(json.dumps(found))
"""


def test_freed_memory_is_kept_within_the_block_and_given_back_after_it() -> None:
    """In a process of its own: the heap of one with a long past tells nothing."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for when, more in found.items():
        assert more > TAKEN - ROOM if "within" in when else more < ROOM, found
