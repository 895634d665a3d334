"""Errors of the YAML parser in the words of people who write option files."""

from __future__ import annotations

import re
from typing import NamedTuple

import yaml

SPACE_BEHIND_COLON = "put a space behind the colon: 'key: value'"
SECOND_COLON = (
    "a second colon; put the keys of a section on lines of their own, below it and indented, and "
    "quote a value that has a colon: 'key: \"a: b\"'"
)
FULL_WIDTH = "\uff1a"
FULL_WIDTH_COLON = (
    "a full-width colon (\uff1a); write 'key: value', with an ASCII colon and a space"
)
SINGLE_QUOTES = (
    r"a backslash in double quotes begins an escape; put paths into single quotes, 'D:\data', or "
    "write D:/data"
)


class Explained(NamedTuple):
    """Line, from 1, and description of an error; the line is 0 if it is not known."""

    line: int
    text: str


def explained(error: yaml.YAMLError, text: str) -> Explained:
    """Return where the fault is that the parser noticed, which may be above, and what to do."""
    if isinstance(error, yaml.reader.ReaderError):
        return Explained(
            text.count("\n", 0, error.position) + 1,
            f"a control character (code {error.character:#x}), which text does not have; delete it",
        )
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Explained(0, " ".join(str(error).split()))
    return _Fault(error, error.problem_mark, text).explained()


class _Fault:
    """An error with the lines around it, which are counted from 0 here."""

    def __init__(self, error: yaml.MarkedYAMLError, mark: yaml.Mark, text: str) -> None:
        self.problem = str(error.problem or error.context)
        self.context = str(error.context or "")
        self.lines = [*text.splitlines(), ""]
        self.line = min(mark.line, len(self.lines) - 1)
        self.column = mark.column
        begin = error.context_mark or mark
        self.begin, self.begin_column = min(begin.line, len(self.lines) - 1), begin.column

    def explained(self) -> Explained:
        for explain in (
            self._tab,
            self._full_width,
            self._quotes,
            self._colon,
            self._brackets,
            self._first_character,
        ):
            if found := explain():
                return Explained(found.line + 1, found.text)
        if "block end" in self.problem or "document start" in self.problem:
            found = Explained(
                self.line,
                "stands in another column than the lines of its section; align the keys of a "
                "section",
            )
        elif "sequence entries" in self.problem:
            found = Explained(self.line, "a list with '- ' begins on a line of its own")
        elif "another document" in self.problem:
            found = Explained(self.line, "a second document ('---') begins; a file holds one")
        else:
            found = Explained(self.line, self.problem)
        return Explained(found.line + 1, found.text)

    def _tab(self) -> Explained | None:
        for line in (self.line, self.line - 1, self.begin):
            if line >= 0 and re.match(r" *\t", self.lines[line]):
                return Explained(line, "indented with a tab; replace it by spaces")
        if "'\\t'" in self.problem:
            return Explained(self.line, "a tab in front of a value; replace it by a space")
        return None

    def _full_width(self) -> Explained | None:
        for line in (self.line, self.line - 1, self.begin):
            if line >= 0 and re.match(rf"\s*(- )?[\w.-]+{FULL_WIDTH}", self.lines[line]):
                return Explained(line, FULL_WIDTH_COLON)
        return None

    def _quotes(self) -> Explained | None:
        if "escape" in self.problem:
            return Explained(self.line, SINGLE_QUOTES)
        if "quoted scalar" in self.context:
            escaped = rf"; {SINGLE_QUOTES}" if "\\" in self.lines[self.begin] else ""
            return Explained(self.begin, f"the quote that begins here has no end{escaped}")
        before = self.lines[self.line][: self.column].rstrip()
        if "block end" in self.problem and before.endswith(("'", '"')):
            return Explained(self.line, "text behind a quoted value; quote all of it")
        return None

    def _colon(self) -> Explained | None:
        if "could not find expected ':'" in self.problem:
            if re.match(r"\s*(- )?[\w.-]+:\S", self.lines[self.begin]):
                return Explained(self.begin, SPACE_BEHIND_COLON)
            word = self.lines[self.begin].strip()[:40]
            return Explained(self.begin, f"a colon is missing: '{word}' is no 'key: value'")
        if "mapping values are not allowed" not in self.problem:
            return None
        above = next((n for n in range(self.line - 1, -1, -1) if self.lines[n].strip()), None)
        if re.search(r":\s", self.lines[self.line][: self.column]):
            return Explained(self.line, SECOND_COLON)
        if above is not None and re.match(r"\s*(- )?[\w.-]+:[^\s]", self.lines[above]):
            return Explained(above, SPACE_BEHIND_COLON)
        if above is not None and re.fullmatch(r"\s*(- )?[\w.-]+\s*", self.lines[above]):
            word = self.lines[above].strip()
            return Explained(above, f"a colon is missing behind '{word}'")
        return Explained(
            self.line, "indented deeper than the line above, which has a value already; align them"
        )

    def _brackets(self) -> Explained | None:
        if "flow" not in self.context:
            return None
        opened = self.lines[self.begin][self.begin_column : self.begin_column + 1]
        closing = {"[": "]", "{": "}"}.get(opened)
        if closing is None:
            return Explained(self.begin, "a bracket, [ or {, is not closed, or a value is missing")
        return Explained(
            self.begin,
            f"the '{opened}' here is not closed by '{closing}', or a comma is missing or too much "
            "inside",
        )

    def _first_character(self) -> Explained | None:
        if "alias" in self.context or "undefined alias" in self.problem:
            return Explained(
                self.line, "a value that begins with * is an alias of an anchor (&); quote it"
            )
        kinds = {"anchor": "&", "tag": "!", "directive": "%", "block scalar": "| or >"}
        for kind, character in kinds.items():
            if kind in self.context:
                return Explained(self.line, f"a value cannot begin with {character}; quote it")
        if found := re.search(r"found character '(.*?)' that cannot start", self.problem):
            return Explained(self.line, f"a value cannot begin with {found[1]}; quote it")
        return None
