"""What importing the library must not bring along."""

import subprocess
import sys

LATE = ("cv2", "matplotlib", "skimage", "tensorboard", "torchvision")


def test_heavy_libraries_wait_until_they_are_needed():
    program = (
        "import sys, basicsr.train, basicsr.test, basicsr.restore; "
        f"print([name for name in {LATE!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
