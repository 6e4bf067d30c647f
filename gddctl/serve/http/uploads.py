"""The image in a request's body: the body itself, or the first file of a form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gddctl.serve.http.refusal import malformed

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_PARTS = 64


class _FirstFile:
    """Collects the first part of a form that has a file name, and skips the others."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.whole = False
        self._parts = 0
        self._inside = False
        self._header = self._value = b""
        self._is_file = False

    def callbacks(self) -> MultipartCallbacks:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._content,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise malformed(f"a form of more than {_MAX_PARTS} parts, expected one file")
        self._header = self._value = b""
        self._is_file = False

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._header = self._value = b""

    def _headers_end(self) -> None:
        self._inside = self._is_file and not self.whole and not self.pieces

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self.pieces.append(data[start:end])

    def _end(self) -> None:
        if self._inside:
            self.whole, self._inside = True, False


def image_bytes(body: bytes, content_type: str | None) -> bytes:
    """The encoded image of a request.

    Args:
        body: the whole body.
        content_type: its header; anything but a form is taken as the image itself, whatever it calls itself.

    Raises:
        Refusal: 400, a form without a file, or one that is broken.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        if not body:
            raise malformed("the body is empty; expected an image, or a form with one file")
        return body
    boundary = options.get(b"boundary")
    if not boundary:
        raise malformed("the form has no boundary in its Content-Type")
    found = _FirstFile()
    try:
        parser = MultipartParser(boundary, found.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise malformed("the form cannot be read") from error
    if not found.whole:
        raise malformed("the form holds no file; expected one part with a file name")
    return b"".join(found.pieces)
