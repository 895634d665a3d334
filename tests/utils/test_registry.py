import sys

import pytest

from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import Registry, import_modules, suggest


class Net:
    def __init__(self, dim: int = 4, depth: int = 1) -> None:
        self.dim, self.depth = dim, depth


@pytest.fixture
def nets():
    registry = Registry("network")
    registry.register(Net)
    registry.variant("Net-L", Net, dim=64)
    return registry


def test_a_variant_is_the_class_with_other_defaults(nets):
    assert nets.names() == ["Net", "Net-L"]
    assert nets.build({"type": "Net"}).dim == 4
    assert nets.build({"type": "Net-L"}).dim == 64
    assert nets.build({"type": "Net-L", "dim": 8, "depth": 3}).dim == 8
    assert nets.entry("Net-L").parameters()["dim"].default == 64


def test_an_unknown_name_suggests_the_closest(nets):
    with pytest.raises(OptionsError, match=r"no network is called 'nett' \(did you mean 'Net'\?\)"):
        nets.build({"type": "nett"})


def test_names_are_unique_and_presets_must_fit(nets):
    with pytest.raises(ValueError, match="a network called Net already"):
        nets.register(Net)
    with pytest.raises(TypeError, match="width"):
        nets.variant("Net-W", Net, width=3)


def test_suggestions_ignore_case_and_need_a_close_name():
    assert suggest("dtpnet-t", ["DTPNet-T", "PReNet"]) == " (did you mean 'DTPNet-T'?)"
    assert suggest("zzz", ["DTPNet-T", "PReNet"]) == ""


def test_modules_are_imported_by_the_end_of_their_names(tmp_path, monkeypatch):
    package = tmp_path / "toys"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("good_arch", "other"):
        (package / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    import_modules("toys", [str(package)], "_arch")
    assert "toys.good_arch" in sys.modules
    assert "toys.other" not in sys.modules
