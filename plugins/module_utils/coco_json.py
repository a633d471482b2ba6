"""Reads a COCO annotation file element by element: one of 450 MB takes little memory, and its sum on the way.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

CHUNK = 4 << 20  # bytes that are read at once
# JSON that was cut fails at its end. A number or a word that is cut fails where it begins, this much before at most.
MARGIN = 64

SPACE = re.compile(r"[ \t\r\n]*")
NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


class Unreadable(Exception):
    """What an annotation file is instead of JSON. `kind`: "cut" (the end is missing) or "json" (it never was)."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind, self.what = kind, what


def name_of(value: object) -> str:
    """What a JSON value is, for people."""
    return NAMES.get(type(value), "null")


class JsonStream:
    """The members of the object in a JSON file, as (key, value); lists whose keys are in `lists` element by element.

    `kinds` tells, after the end, what each member was, and `sha256` the sum of the whole file.
    """

    def __init__(self, stream: BinaryIO, lists: frozenset[str]) -> None:
        self._stream, self._lists = stream, lists
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._sum = hashlib.sha256()
        self._text, self._at, self._before = "", 0, 0  # _before: characters that are no longer in _text
        self.kinds: dict[str, str] = {}

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        if self._next() != "{":
            raise Unreadable(
                "json", f"it begins with {self._text[self._at : self._at + 40]!r}" if self._text else "it is empty"
            )
        self._at += 1
        more = self._next() != "}"
        while more:
            key = self._value()
            if not isinstance(key, str) or self._next() != ":":
                raise self._broken("a key and a colon should be there")
            self._at += 1
            if key in self._lists and self._next() == "[":
                self.kinds[key] = "a list"
                yield from ((key, element) for element in self._elements())
            else:
                value = self._value()
                self.kinds[key] = name_of(value)
                yield key, value
            more = self._goes_on("}")
        self._at += 1
        if self._next():
            raise self._broken("it goes on after its end")

    def _elements(self) -> Iterator[Any]:
        self._at += 1
        more = self._next() != "]"
        while more:
            yield self._value()
            more = self._goes_on("]")
        self._at += 1

    def _goes_on(self, end: str) -> bool:
        """Whether a comma and another element follow, and not the `end`."""
        found = self._next()
        if found == ",":
            self._at += 1
        elif found != end:
            raise self._broken(f"a comma or {end} should be there")
        return found == ","

    def _next(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            match = SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(CHUNK):
                return ""

    def _value(self) -> Any:
        self._next()
        size = CHUNK
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                # Perhaps only the part that was read ends here.
                at_the_end = error.pos > len(self._text) - MARGIN or error.msg.startswith("Unterminated string")
                if not (at_the_end and self._read(size)):
                    self._at = error.pos if not at_the_end else self._at
                    raise self._broken(error.msg) from None
            except RecursionError:
                raise Unreadable("json", "it is nested too deeply") from None
            except ValueError as error:  # a number of thousands of digits
                raise Unreadable("json", str(error)) from None
            else:
                # A number at the end of what was read may go on.
                if end < len(self._text) or not self._read(size):
                    self._at = end
                    return value
            size *= 2

    def _read(self, size: int) -> bool:
        """Read on; returns whether there was more. What comes before the current place is forgotten."""
        data = self._stream.read(size)
        self._sum.update(data)
        try:
            text = self._decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise Unreadable(
                "json", f"it is not UTF-8: {error.reason} in {data[error.start : error.start + 8]!r}"
            ) from None
        self._before += self._at
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(data)

    def _broken(self, what: str) -> Unreadable:
        """What is wrong at the current place. A file whose last character closes nothing was cut."""
        rest = self._text[self._at :]
        while data := self._stream.read(CHUNK):
            rest = rest[-MARGIN:] + data.decode("utf-8", "replace")
        cut = not rest.rstrip().endswith("}") or not rest.strip()
        near = self._text[max(0, self._at - 20) : self._at + 20]
        return Unreadable("cut" if cut else "json", f"{what}, at character {self._before + self._at:,}, near {near!r}")
