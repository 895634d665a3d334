"""Import name of the installed library, in a checkout: `derain.X` is the module `basicsr.X`.

`pip install .` installs the library as the package `derain`, because PyPI has another package
called basicsr (Real-ESRGAN and GFPGAN install it). `pip install -e .` installs this file, which
gives the library of the checkout the same name; the commands `derain`, `derain-train`... use it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parent
_LIBRARY = "basicsr"


class _Alias(MetaPathFinder, Loader):
    """Finder of `derain.X`, which imports `basicsr.X` in its place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith(f"{__name__}."):
            return ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_LIBRARY + spec.name.removeprefix(__name__))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the specification, which the import system has replaced by the alias's."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def _library() -> ModuleType:
    """Return the library beside this file.

    Raises ImportError if another package of that name has been imported already.
    """
    if str(_ROOT) not in sys.path[:1]:
        sys.path.insert(0, str(_ROOT))
    library = importlib.import_module(_LIBRARY)
    found = Path(library.__file__ or "").parent
    if found != _ROOT / _LIBRARY:
        raise ImportError(
            f"{found}: this is another package called {_LIBRARY}, imported before {_ROOT}; install "
            f"this project under its own name (pip install {_ROOT}) to use both in one program"
        )
    return library


__version__ = _library().__version__
__path__: list[str] = []  # marks a package, whose modules the finder provides
sys.meta_path.insert(0, _Alias())
