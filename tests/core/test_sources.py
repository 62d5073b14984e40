from __future__ import annotations

import importlib
import pickle
import sys
import traceback
from pathlib import Path

import pytest

from modelpack.errors import FlavorError
from modelpack.sources import Namespace

ONE = "sha256:" + "1" * 64
TWO = "sha256:" + "2" * 64


@pytest.fixture(autouse=True)
def clean() -> object:
    before, finders = set(sys.modules), list(sys.meta_path)
    yield None
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        if name.startswith("_modelpack_code_"):
            del sys.modules[name]


def space(digest: str = ONE, **sources: str) -> Namespace:
    """Return a namespace of files named as keywords can be: ``pkg__leaf``, ``pkg____init__``."""
    paths = {name: name.replace("__init__", "*").replace("__", "/").replace("*", "__init__") for name in sources}
    return Namespace(digest, {f"{paths[name]}.py": text.encode() for name, text in sources.items()})


def test_a_module_is_imported_under_the_digest() -> None:
    module = space(churn="value = 1").import_module("churn")
    assert module.value == 1
    assert module.__name__ == f"_modelpack_code_{'1' * 32}.churn"
    assert "churn" not in sys.modules


def test_two_packages_with_one_module_name_live_side_by_side() -> None:
    one = space(ONE, churn="import helper\nvalue = helper.value", helper="value = 1")
    two = space(TWO, churn="import helper\nvalue = helper.value", helper="value = 2")
    assert (one.import_module("churn").value, two.import_module("churn").value) == (1, 2)


def test_own_modules_come_first_inside_and_nowhere_else() -> None:
    code = space(json="dumps = 'mine'", user="import json\nfrom json import dumps\nvalue = (json.dumps, dumps)")
    assert code.import_module("user").value == ("mine", "mine")
    assert importlib.import_module("json").dumps is not None
    assert importlib.import_module("json").dumps != "mine"


@pytest.mark.parametrize(
    "statement",
    [
        "import pkg.sub.leaf\nvalue = pkg.sub.leaf.value",
        "import pkg.sub.leaf as leaf\nvalue = leaf.value",
        "from pkg.sub import leaf\nvalue = leaf.value",
        "from pkg.sub.leaf import value",
        "from pkg import sub\nfrom pkg.sub import leaf\nvalue = sub.leaf.value",
        "import importlib, pkg.uses\nvalue = pkg.uses.value",
    ],
)
def test_every_way_to_import_finds_the_packages_own(statement: str) -> None:
    code = space(pkg____init__="", pkg__sub__leaf="value = 7", pkg__uses="from .sub.leaf import value", main=statement)
    assert code.import_module("main").value == 7


def test_the_python_path_is_left_alone() -> None:
    before = list(sys.path)
    space(churn="import sys\nvalue = list(sys.path)").import_module("churn")
    assert sys.path == before


def test_classes_of_the_package_can_be_pickled_while_it_is_loaded() -> None:
    module = space(churn="class Model:\n    def __init__(self):\n        self.x = 3").import_module("churn")
    assert pickle.loads(pickle.dumps(module.Model())).x == 3


def test_a_traceback_shows_the_packages_source() -> None:
    module = space(churn="def predict(x):\n    return 1 / x  # the line").import_module("churn")
    with pytest.raises(ZeroDivisionError) as info:
        module.predict(0)
    text = "".join(traceback.format_exception(info.value))
    assert "<package>/code/churn.py" in text


def test_resolve_finds_nested_names() -> None:
    code = space(churn="class A:\n    class B:\n        x = 5")
    assert code.resolve("churn:A.B").x == 5


@pytest.mark.parametrize("name", ["absent:x", "churn:absent", "churn.absent:x", "json:dumps"])
def test_what_is_not_there_is_named(name: str) -> None:
    with pytest.raises(FlavorError) as info:
        space(churn="").resolve(name)
    assert info.value.code == "code-missing"


def test_code_that_fails_fails_with_its_own_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        space(churn="import no_such_library").import_module("churn")


def test_data_beside_the_code_is_found_by_file(tmp_path: Path) -> None:
    sources = {"churn/__init__.py": b"from pathlib import Path\nvalue = (Path(__file__).parent / 'w.txt').read_text()"}
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "w.txt").write_text("weights")
    code = Namespace(ONE, {**sources, "churn/w.txt": b"weights"}, lambda: tmp_path)
    assert code.import_module("churn").value == "weights"


def test_data_beside_the_code_is_found_as_a_resource(tmp_path: Path) -> None:
    script = (
        b"import importlib.resources, pkgutil\n"
        b"value = importlib.resources.files(__package__).joinpath('w.txt').read_text()\n"
        b"other = pkgutil.get_data(__package__, 'w.txt')\n"
    )
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "w.txt").write_text("weights")
    sources = {"churn/__init__.py": b"", "churn/part.py": script, "churn/w.txt": b"weights"}
    module = Namespace(ONE, sources, lambda: tmp_path).import_module("churn.part")
    assert (module.value, module.other) == ("weights", b"weights")


def test_modules_without_data_have_no_resources() -> None:
    code = space(churn____init__="", churn__part="")
    code.import_module("churn.part")
    loader = sys.modules[code.qualify("churn")].__loader__
    assert loader.get_resource_reader(code.qualify("churn")) is None  # type: ignore[union-attr]
    assert loader.get_resource_reader(code.qualify("churn.part")) is None  # type: ignore[union-attr]


def test_without_data_nothing_is_written() -> None:
    def refuse() -> Path:
        raise AssertionError("written")

    code = Namespace(ONE, {"churn.py": b"value = globals().get('__file__')"}, refuse)
    assert code.import_module("churn").value is None


def test_other_finders_are_not_disturbed() -> None:
    code = space(churn="")
    code.install()
    code.install()
    finder = sys.meta_path[-1]
    assert [one for one in sys.meta_path if getattr(one, "namespace", None) is code] == [finder]
    assert importlib.util.find_spec(f"{code.root}.absent") is None
    assert finder.get_source(f"{code.root}.churn") == ""  # type: ignore[attr-defined]
    assert finder.get_source(f"{code.root}.absent") is None  # type: ignore[attr-defined]
    assert not finder.is_package(f"{code.root}.churn")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "statement",
    [
        "import importlib\nvalue = importlib.import_module('pkg.sub.leaf').value",
        "import importlib.util\nvalue = importlib.import_module('pkg.sub.leaf').value",
        "import importlib.util as util, importlib as lib\nvalue = lib.import_module('pkg.sub.leaf').value",
        "from importlib import import_module\nvalue = import_module('pkg.sub.leaf').value",
        "from importlib import *\nvalue = import_module('pkg.sub.leaf').value",
        "from importlib import import_module\nvalue = import_module('.leaf', 'pkg.sub').value",
        "from importlib import import_module\nimport pkg.sub\nvalue = import_module('.leaf', pkg.sub.__name__).value",
        "value = __import__('pkg.sub.leaf').sub.leaf.value",
        "value = __import__('pkg.sub.leaf', fromlist=['value']).value",
        "from pkg.sub import *\nvalue = leaf.value",
    ],
)
def test_a_module_named_at_run_time_is_the_packages_own(statement: str) -> None:
    code = space(pkg____init__="", pkg__sub____init__="__all__ = ['leaf']", pkg__sub__leaf="value = 7", main=statement)
    assert code.import_module("main").value == 7


def test_an_installed_module_named_at_run_time_is_found_as_ever() -> None:
    code = space(
        json="mine = True",
        main="import importlib, importlib.util as util\n"
        "own, other = importlib.import_module('json'), importlib.import_module('decimal')\n"
        "relative = importlib.import_module('.dom', 'xml')\n"
        "spec, reload = util.find_spec, importlib.reload",
    )
    module = code.import_module("main")
    assert module.own.mine
    assert module.other is importlib.import_module("decimal")
    assert module.relative is importlib.import_module("xml.dom")
    assert (module.spec, module.reload) == (importlib.util.find_spec, importlib.reload)
    assert importlib.import_module("json").dumps is not None
    with pytest.raises(AttributeError):
        _ = module.importlib.no_such_name


def test_flavors_of_one_package_import_only_the_files_they_list() -> None:
    one = space(ONE, a="value = 1")
    both = space(ONE, a="value = 1", b="import a\nvalue = a.value + 1")
    assert one.import_module("a").value == 1
    assert both.import_module("b").value == 2
    assert space(ONE, a="value = 1").import_module("a") is one.import_module("a")
    with pytest.raises(FlavorError):
        one.import_module("b")
