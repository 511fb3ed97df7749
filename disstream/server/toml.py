"""Where in a TOML file each key stands, so that a message can name the line. Pure.

`tomllib` reads the file and checks its grammar, but keeps no positions. So what it accepted is walked once more, here,
by a scanner that trusts the grammar: it only has to tell keys from values, strings and comments.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, NamedTuple

from ..errors import ConfigError

Path = tuple[str | int, ...]
"""Keys and indexes from the top: ("users", 0, "access_keys", 1, "ak")."""

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)"
    r"|(?P<newline>\n)"
    r'|(?P<string>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')'
    r"|(?P<mark>[\[\]{}=,.])"
    r"|(?P<bare>[^\s\[\]{}=,.#\"']+)",
    re.DOTALL,
)


class Document(NamedTuple):
    """What the file says, and the line (from 1) of each key, table and array element."""

    data: dict[str, Any]
    lines: dict[Path, int]

    def __repr__(self) -> str:  # without the values, some of which are secrets
        return f"Document({len(self.lines)} places)"

    def line(self, path: Path) -> int:
        """Of `path`, or of what holds it. Tables nobody wrote a header for stand where their first key does."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_document(text: str) -> Document:
    """Raises ConfigError "LINE: what is wrong"; the caller puts the file's name before it."""
    try:
        data = tomllib.loads(text)
        return Document(data, _Scanner(text).lines())
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(exc), re.DOTALL)
        told, line = (found[1], found[2]) if found else (str(exc), None)
        raise ConfigError(f"{line or text.count(chr(10)) + 1}: not TOML: {told}") from None
    except ValueError:  # not a TOMLDecodeError: of `int`, for thousands of digits
        raise ConfigError("1: not TOML: a number has too many digits") from None
    except RecursionError:
        raise ConfigError("1: not TOML: nested too deeply") from None


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Scanner:
    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        line = 1
        for found in _TOKEN.finditer(text):
            if found.lastgroup != "space":
                self._tokens.append(_Token(found.lastgroup or "", found[0], line))
            line += found[0].count("\n")
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}  # arrays of tables: how many elements so far

    def lines(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_newlines():
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _skip_newlines(self) -> bool:
        """False at the end."""
        while self._at < len(self._tokens) and self._tokens[self._at].kind == "newline":
            self._at += 1
        return self._at < len(self._tokens)

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else "\n"

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _header(self) -> Path:
        line = self._take().line
        is_element = self._peek() == "["
        if is_element:
            self._take()
        *parents, last = self._keys(line)
        path: Path = ()
        for key in parents:
            path = self._inside((*path, key), line)
        path = (*path, last)
        if is_element:
            self._lines.setdefault(path, line)
            self._counts[path] = self._counts.get(path, 0) + 1
        path = self._inside(path, line)
        self._lines[path] = line
        while self._peek() == "]":
            self._take()
        return path

    def _inside(self, path: Path, line: int) -> Path:
        """An array of tables is entered at its last element."""
        if path in self._counts:
            path = (*path, self._counts[path] - 1)
        self._lines.setdefault(path, line)
        return path

    def _keys(self, line: int) -> list[str]:
        keys = [self._key()]
        while self._peek() == ".":
            self._take()
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        token = self._take()
        if token.kind == "string":
            return str(tomllib.loads(f"k = {token.text}")["k"])
        return token.text

    def _pair(self, table: Path) -> None:
        line = self._tokens[self._at].line
        path = table
        for key in self._keys(line):
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._take()  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        match self._peek():
            case "[":
                self._take()
                index = 0
                while self._skip_newlines() and self._peek() != "]":
                    self._lines[(*path, index)] = self._tokens[self._at].line
                    self._value((*path, index))
                    index += 1
                    self._comma()
                self._take()
            case "{":
                self._take()
                while self._skip_newlines() and self._peek() != "}":
                    self._pair(path)
                    self._comma()
                self._take()
            case _:
                while self._peek() not in ("\n", ",", "]", "}"):
                    self._take()

    def _comma(self) -> None:
        self._skip_newlines()
        if self._peek() == ",":
            self._take()
