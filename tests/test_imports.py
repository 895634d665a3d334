"""Heavy libraries are imported only when they are needed."""

import subprocess
import sys

HEAVY = ("cv2", "matplotlib", "skimage", "tensorboard", "torchvision")


def test_the_entry_points_import_no_heavy_libraries():
    program = (
        "import sys, basicsr.train, basicsr.test, basicsr.restore; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
