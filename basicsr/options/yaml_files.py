"""Reading YAML files safely and strictly, and replacing single values from the command line."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

from basicsr.options.yaml_errors import FULL_WIDTH, FULL_WIDTH_COLON
from basicsr.options.yaml_values import parse_yaml
from basicsr.utils.errors import OptionsError

_MAX_BYTES = 2**19
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f]")  # control characters other than \t, \n and \r


def read_yaml(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises OptionsError, with the line, if there is none."""
    content = parse_yaml(_text_of(file), str(file))
    if not isinstance(content, dict):
        if isinstance(content, str) and FULL_WIDTH in content:
            raise OptionsError(f"{file}: {FULL_WIDTH_COLON}")
        raise OptionsError(
            f"{file}: an option file holds 'key: value' lines, with a space behind the colon; this "
            "one does not"
        )
    return content


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise OptionsError(f"{file}: there is no such option file") from None
    except OSError as error:
        raise OptionsError(f"{file}: cannot be read ({error.strerror})") from None
    if len(data) > _MAX_BYTES:
        raise OptionsError(
            f"{file}: larger than {_MAX_BYTES // 1024} KiB, so no option file; name a YAML file"
        )
    if data.startswith(_WIDE) or (b"\0" in data[:4] and data[:4].strip(b"\0")):
        raise OptionsError(f"{file}: saved as UTF-16 or UTF-32; save it as UTF-8 in the editor")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    if _NO_TEXT.search(data):
        raise OptionsError(f"{file}: not a text file; name a YAML file")
    raise OptionsError(
        f"{file}, line {line}: saved in another encoding than UTF-8 (GBK, Latin-1 or the like); "
        "save it as UTF-8 in the editor, or write names without such characters"
    )


def assign(raw: dict[str, Any], assignment: str) -> None:
    """Set one value of `raw` in place, as `assignment` "a:b:c=value" says.

    Missing sections are created.
    """
    if len(assignment) > 2**16:
        raise OptionsError(f"--force_yml {assignment[:40]}...: longer than 64 KiB")
    path, equals, value = assignment.partition("=")
    if not equals or not path:
        raise OptionsError(f"--force_yml {assignment}: expected a:b:c=value")
    *parents, last = path.split(":")
    place: Any = raw
    for step, key in enumerate(parents):
        place = _item(place, key, assignment, ":".join(parents[:step]), make=True)
    if isinstance(place, list):
        _item(place, last, assignment, ":".join(parents))
        place[int(last)] = parse_yaml(value, f"--force_yml {assignment}", lines=False)
    elif isinstance(place, dict):
        place[last] = parse_yaml(value, f"--force_yml {assignment}", lines=False)
    else:
        raise OptionsError(
            f"--force_yml {assignment}: '{':'.join(parents)}' is a value, not a section"
        )


def _item(place: Any, key: str, assignment: str, path: str, make: bool = False) -> Any:
    if isinstance(place, list):
        if not key.isdecimal() or int(key) >= len(place):
            raise OptionsError(
                f"--force_yml {assignment}: '{path}' is a list of {len(place)}; "
                f"'{key}' is no index of it (the first is 0)"
            )
        return place[int(key)]
    if isinstance(place, dict):
        if make and place.get(key) is None:
            place[key] = {}
        return place[key]
    raise OptionsError(f"--force_yml {assignment}: '{path}' is a value, not a section")
