"""Import the library of this checkout, even if another package called basicsr is installed.

Python looks for imports in the folder of a script first, finds this file, and imports the library
from the folder above in its place.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
del sys.modules[__name__]
importlib.import_module(__name__)
