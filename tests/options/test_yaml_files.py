"""Reading YAML: values, bounds, and errors with their line and remedy."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest

from basicsr.options.yaml_files import read_yaml
from basicsr.options.yaml_values import parse_yaml
from basicsr.utils.errors import OptionsError

INDENTED = "indented with a tab; replace it by spaces"
SPACE = "put a space behind the colon"
SINGLE = "put paths into single quotes"
NESTED = "nested too deeply"
REPEATED = "an alias .* stands inside of the value that it repeats"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(9 * [f'*{old}'])}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        # repeated and complicated keys
        ("name: a\nname: b\n", 2, "the key 'name' stands here twice"),
        ("train:\n  x: 1\n  x: 2\n", 3, "the key 'x' stands here twice"),
        ("? [a, b]\n: 1\n", 1, "a key must be a plain word"),
        # brackets and quotes without end
        ("name: a\nb: [1\nc: 2\n", 2, r"the '\[' here is not closed by '\]'"),
        ("name: a\nb: {c: 1\nd: 2\n", 2, "the '{' here is not closed by '}'"),
        ("a: [1, 2}\n", 1, r"the '\[' here is not closed"),
        ("name: 'abc\nb: 2\n", 1, "the quote that begins here has no end"),
        ('a: 1\nroot: "D:\\data\\"\nb: 2\n', 2, SINGLE),
        ('name: "a" b\n', 1, "text behind a quoted value; quote all of it"),
        # backslashes in double quotes
        ('a: 1\nroot: "D:\\data"\n', 2, SINGLE),
        ('a: 1\nroot: "C:\\Users\\x"\n', 2, SINGLE),
        ('a: 1\nroot: "C:\\new\\train"\n', 2, SINGLE),
        ('a: 1\nroot: "C:\\x"\n', 2, SINGLE),
        # tabs
        ("a:\n\tb: 1\n", 2, INDENTED),
        ("a:\n  b: 1\n\tc: 1\n", 3, INDENTED),
        ("a:\n  \tb: 1\n", 2, INDENTED),
        ("a: 1\n\tb: 2\n", 2, INDENTED),
        ("a:\n- \tb: 1\n", 2, "tab"),
        # colons
        ("name: a\n  b: 1\n", 2, "indented deeper than the line above, which has a value already"),
        ("a: 1\nname: b: c\n", 2, "a second colon; .* quote a value that has a colon"),
        ("network_g: type: DTPNet\n", 1, "a second colon; put the keys of a section on lines of"),
        ("a: 1\nname\uff1ab\nc: 1\n", 2, "a full-width colon"),
        ("a:\n  - name\uff1ab\n    c: 1\n", 2, "a full-width colon"),
        ("train\n  a: 1\n", 1, "a colon is missing behind 'train'"),
        ("a: 1\ntrain:\n  total_iter:4\n  b: 1\n", 3, SPACE),
        ("name: a\nmodel_type:X\ndatasets: 1\n", 2, SPACE),
        ("name: a\nmodel_type X\ndatasets: 1\n", 2, "a colon is missing: 'model_type X'"),
        # columns and lists
        ("a:\n    b: 1\n  c: 1\n", 3, "in another column than the lines of its section"),
        ("a: - b\n", 1, "a list with '- ' begins on a line of its own"),
        ("a: 1\n- b\n", 2, "in another column"),
        # first characters
        ("files: *.png\n", 1, r"a value that begins with \* is an alias"),
        ("a: 1\nfiles: *all\n", 2, r"a value that begins with \* is an alias"),
        ("a: @b\n", 1, "a value cannot begin with @; quote it"),
        ("a: `b`\n", 1, "a value cannot begin with `; quote it"),
        ("a: %b\n", 1, "a value cannot begin with %; quote it"),
        ("a: &.b\n", 1, "a value cannot begin with &; quote it"),
        # several documents, control characters
        ("a: 1\n---\nb: 1\n", 2, "a second document"),
        ("a: 1\nb: \x01\n", 2, r"a control character \(code 0x1\)"),
        ('a: "\\ud800"\n', 1, "half of a character"),
        # tags
        ("a: !!float _\n", 1, "'_' is no !!float, a number"),
        ("a: !!int 0x\n", 1, "'0x' is no !!int, a whole number"),
        ("a: !!int 1:2\n", 1, "'1:2' is no !!int"),
        ("a: !!bool x\n", 1, "'x' is no !!bool, which is true or false"),
        ("a: !!null x\n", 1, "'x' is no !!null"),
        ("a: !!timestamp 2020-99-99\n", 1, "the tag !!timestamp does not suit"),
        ("a: !!map [a]\n", 1, "the tag !!map does not suit"),
        ("a: !!seq {a: 1}\n", 1, "the tag !!seq does not suit"),
        ("a: !!str [a]\n", 1, "the tag !!str does not suit"),
        ("a: !!set {a}\n", 1, "the tag !!set"),
        ("a: !!omap [a: 1]\n", 1, "the tag !!omap"),
        ("a: !!binary eA==\n", 1, "the tag !!binary"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "the tag !!python/object"),
        ("a: !mine b\n", 1, "the tag !mine"),
        # numbers
        (f"a: {'9' * 4301}\n", 1, "a number of 4301 digits, which is too large"),
        (f"a: 0x{'f' * 4301}\n", 1, "a number of 4303 digits"),
        ("a: 18446744073709551616\n", 1, "is too large"),
        ("a: 0123\n", 1, "a number does not begin with 0; quote it, '0123', if it is text"),
        # structure
        ("a: 1\nb: &x [*x]\n", 2, REPEATED),
        ("&x a: 1\nb: &y {c: {d: *y}}\n", 2, REPEATED),
        ("b: &y\n  <<: *y\n", 1, REPEATED),
        ("a: " + 50 * "[" + 50 * "]" + "\n", 1, NESTED),
        ("a: " + 100_000 * "[" + "\n", 1, NESTED),
        ("".join(f"{n * ' '}a:\n" for n in range(100)), 32, NESTED),
        (BOMB, None, "more than 100,000 values; the aliases"),
        ("a: &a 5\nb: {<<: *a}\n", 2, "'<<' copies the keys of a section"),
    ],
)
def test_an_error_names_its_line_and_remedy(tmp_path, text, line, message):
    file = tmp_path / "a.yml"
    file.write_text(text)
    with pytest.raises(OptionsError) as caught:
        read_yaml(file)
    where = rf"{re.escape(str(file))}, line {r'[0-9]+' if line is None else line}: "
    assert re.match(where, str(caught.value)), str(caught.value)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["- a\n", "", "5\n", "name:a\n", "# nothing\n", "--- ~\n"])
def test_files_without_keys(tmp_path, text):
    file = tmp_path / "a.yml"
    file.write_text(text)
    with pytest.raises(OptionsError, match="an option file holds 'key: value' lines, with a space"):
        read_yaml(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "name: a\nroot: 数据\n".encode("gbk"),
            "line 2: saved in another encoding than UTF-8 (GBK",
        ),
        (
            "name: a\n".encode("utf-16"),
            ": saved as UTF-16 or UTF-32; save it as UTF-8 in the editor",
        ),
        ("name: a\n".encode("utf-16-le"), ": saved as UTF-16 or UTF-32; save it"),
        ("name: a\n".encode("utf-16-be"), ": saved as UTF-16 or UTF-32; save it"),
        ("name: a\n".encode("utf-32-be"), ": saved as UTF-16 or UTF-32"),
        ("name: \xe9t\xe9\n".encode("latin-1"), "line 1: saved in another encoding than UTF-8"),
        ("name\uff1aa\n".encode(), ": a full-width colon"),
        (b"\x89PNG\r\n\x1a\n\xff", ": not a text file"),
        (b"a: 1\n" * 200_000, ": larger than 512 KiB, so no option file"),
    ],
)
def test_files_that_are_no_utf_8(tmp_path, data, message):
    file = tmp_path / "a.yml"
    file.write_bytes(data)
    with pytest.raises(OptionsError, match=re.escape(message)):
        read_yaml(file)


def test_a_byte_order_mark_and_line_ends_of_windows_are_accepted(tmp_path):
    (tmp_path / "a.yml").write_bytes("a: 数据\r\nb: 'D:\\data'\r\n".encode("utf-8-sig"))
    assert read_yaml(tmp_path / "a.yml") == {"a": "数据", "b": "D:\\data"}


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(OptionsError, match="there is no such option file"):
        read_yaml(tmp_path / "no.yml")
    with pytest.raises(OptionsError, match="cannot be read"):
        read_yaml(tmp_path)
    with pytest.raises(OptionsError, match="larger than 512 KiB"):
        read_yaml(Path("/dev/zero"))


def test_aliases_that_multiply_take_little_memory():
    tracemalloc.start()
    with pytest.raises(OptionsError, match="the aliases"):
        parse_yaml(BOMB, "x")
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, 1e-4) for text in ("1e-4", "1.0e-4", "1.e-4", "+1E-4", "!!float 1e-4", "0.0001")),
        *((text, 4000.0) for text in ("4e3", "!!float 4e3", "4_000.0")),
        *((text, 11) for text in ("11", "+11", "0xb", "0b1011", "1_1", "!!int 11")),
        *((text, True) for text in ("true", "yes", "On", "!!bool TRUE")),
        *((text, False) for text in ("false", "no", "OFF")),
        *((text, None) for text in ("~", "null", "", "!!null ''")),
        *((text, text) for text in ("2024-01-31", "12:30", "a/b", "D:\\data", "1.2.3", "x y")),
        ("!!str 5", "5"),
        ("'5'", "5"),
        ("-5", -5),
        ("1e999", float("inf")),
        ("[1, a, {b: 2}]", [1, "a", {"b": 2}]),
        ("{1: a, on: b, ~: c}", {"1": "a", "on": "b", "~": "c"}),
        ("{a: &x {b: 1, c: 2}, d: {<<: *x, c: 3}, e: *x}", None),
    ],
)
def test_values(text, value):
    read = parse_yaml(text, "x")
    if "<<" in text:
        assert read["d"] == {"b": 1, "c": 3}
        assert read["e"] == read["a"]
        assert read["e"] is not read["a"]  # an assignment to one leaves the other
    else:
        assert read == value
        assert type(read) is type(value)
