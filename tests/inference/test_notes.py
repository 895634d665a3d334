"""Lines about files that were left out, or lack something."""

from __future__ import annotations

from pathlib import Path

from basicsr.inference.files import Outcome
from basicsr.inference.jobs import RECORDS, Findings, Records
from basicsr.inference.notes import notes, printable


def test_nothing_is_said_about_ordinary_folders(tmp_path):
    assert list(notes(Outcome(3, 2, []), Findings(), Records(tmp_path, {}))) == []


def test_everything_that_was_left_out_is_counted_and_named(tmp_path):
    (tmp_path / RECORDS).write_bytes(b"5\n{}")
    left_out = {"the ICC profile": ["a.jpg"], "APP11": [f"{number}.jpg" for number in range(9)]}
    findings = Findings(
        others=[Path("in/a.CR2"), Path("in/b.cr2"), Path("in/notes")],
        repeated=[Path("in/loop")],
    )
    assert list(notes(Outcome(9, 0, [], left_out), findings, Records(tmp_path, {}))) == [
        "not kept: the ICC profile (a.jpg)",
        "not kept: APP11 (9 files: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...)",
        "not read, as they are no images or videos of a known format: 2 .cr2, 1 no suffix "
        "(in/a.CR2, in/b.cr2, in/notes)",
        "links to folders that are restored already: in/loop",
        f"{tmp_path}/{RECORDS}: damaged lines are ignored (1, 2)",
    ]


def test_names_cannot_break_lines_or_control_the_terminal():
    assert printable("a\nb\x1b[2J\udce9é雨") == "a\\nb\\x1b[2J\\udce9é雨"
