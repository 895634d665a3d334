import argparse
import errno
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from basicsr.utils import cli
from basicsr.utils.cli import command
from basicsr.utils.errors import DataError


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (DataError("a/b.png: truncated"), 2, "error: a/b.png: truncated"),
        (OSError(errno.ENOSPC, "No space left", "x.state"), 2, "error: x.state: No space left"),
        (OSError("odd"), 2, "error: odd"),
        (torch.OutOfMemoryError("CUDA: 3 GiB"), 2, "error: out of GPU memory: use smaller"),
        (RuntimeError("can't allocate memory"), 2, "error: out of memory: use smaller"),
        (MemoryError("for a row"), 2, "error: out of memory: use smaller"),
        (
            BrokenProcessPool(),
            2,
            "error: a worker process was killed, often because",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_user_errors_are_one_line(raised, code, message, capsys):
    @command
    def main():
        raise raised

    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.parametrize("bug", [KeyError("oops"), RuntimeError("oops")], ids=repr)
def test_bugs_keep_their_stack_trace(bug):
    @command
    def main():
        raise bug

    with pytest.raises(type(bug), match="oops"):
        main()


def test_shared_arguments():
    parser = cli.script_parser("Restore.\n\n    python x.py")
    cli.add_option_file(parser)
    cli.add_device(parser)
    cli.add_precision(parser)
    cli.add_memory(parser)
    cli.add_workers(parser, "threads", default=3)
    arguments = vars(parser.parse_args(["-opt", "a.yml"]))
    assert arguments == {
        "opt": "a.yml",
        "force_yml": [],
        "device": "auto",
        "precision": "fp32",
        "memory": None,
        "workers": 3,
    }
    line = ["-opt", "a.yml", "--force_yml", "a=1", "b=2", "--memory", "1.5", "--workers", "2"]
    arguments = vars(parser.parse_args([*line, "--device", "cpu", "--precision", "bf16"]))
    assert arguments["force_yml"] == ["a=1", "b=2"]
    assert (arguments["memory"], arguments["workers"]) == (1.5, 2)
    assert (arguments["device"], arguments["precision"]) == ("cpu", "bf16")
    help_text = parser.format_help()
    assert "    python x.py" in help_text
    assert "number of threads (default: 3)" in help_text


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e300", "much"])
def test_amounts_of_memory_are_positive_and_finite(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a positive number"):
        cli.gibibytes(text)


def test_counts_are_positive():
    assert cli.positive("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        cli.positive("0")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_character_breaks_the_output(encoding):
    """Names that the terminal cannot show are escaped, in results, errors and help texts."""
    program = (
        "import sys\n"
        "from basicsr.utils.cli import command\n"
        "from basicsr.utils.errors import DataError\n"
        "@command\n"
        "def main():\n"
        "    print('雨.png')\n"
        "    raise DataError('\\udcff雨.png: truncated')\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 2
    shown = "雨".encode(encoding, "backslashreplace")
    assert done.stdout == shown + b".png\n"
    assert done.stderr == b"error: \\udcff" + shown + b".png: truncated\n"


def test_a_line_is_piped_at_once(tmp_path):
    """The line arrives although the process does not end in the ordinary way."""
    program = (
        "import os\n"
        "from basicsr.utils.cli import command\n"
        "@command\n"
        "def main():\n"
        "    print('first')\n"
        "    os._exit(7)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=100)
    assert (done.returncode, done.stdout) == (7, b"first\n")
