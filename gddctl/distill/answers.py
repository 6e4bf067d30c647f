"""A teacher's answers on disk, one file an image: written whole, checked when read, shared by any number of processes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_CHECKSUM = 4  # bytes at the front: CRC-32 of the rest


class AnswerStore:
    """Tensors by the hash of the image that they answer.

    A file appears under its name only when it is whole, and is not forced to the disk: what a power cut tears is told by its checksum and
    counts as not there. Two processes that answer the same image write the same file.

    Args:
        folder: of one teacher computing in one way; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under ``key``; None where there are none, or none that are whole."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        if zlib.crc32(data[_CHECKSUM:]) != int.from_bytes(data[:_CHECKSUM], "little"):
            return None
        try:
            tensors: dict[str, Tensor] = load(data[_CHECKSUM:])
        except SafetensorError:
            return None
        return tensors

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep ``tensors`` under ``key``.

        Raises:
            OSError: the disk is full or not writable.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        try:
            temporary.write_bytes(zlib.crc32(data).to_bytes(_CHECKSUM, "little") + data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]
