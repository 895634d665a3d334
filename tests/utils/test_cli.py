import errno

import pytest
import torch

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
