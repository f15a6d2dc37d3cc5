"""What is public is exported, documented, and cheap to import."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import statistics
import subprocess
import sys

import pytest

import fedpost
from fedpost.errors import MissingExtraError

EXTRAS = ("click", "rich", "yaml", "watchdog", "matplotlib", "jinja2", "torch", "sklearn", "pytest")
ROOT_NAMES = 15


def public_modules():
    names = [info.name for info in pkgutil.walk_packages(fedpost.__path__, "fedpost.")]
    return ["fedpost", *(name for name in names if not any(part.startswith("_") for part in name.split(".")))]


MODULES = public_modules()


def load(name):
    try:
        return importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


def order(name):
    """Constants, then classes, then functions, each as people sort them: ruff's isort-style order."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [(not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name)]


def documented(thing):
    """Whether it, or what it overrides, has a docstring."""
    return bool((inspect.getdoc(thing) or "").strip())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_is_for(name):
    assert load(name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true_and_sorted(name):
    module = load(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        own = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == name]
        assert own == [], "a module without __all__ defines nothing"
        return
    assert [entry for entry in exported if not hasattr(module, entry)] == []
    assert len(set(exported)) == len(exported)
    assert exported == sorted(exported, key=order)


@pytest.mark.parametrize("name", MODULES)
def test_packages_export_what_their_modules_export(name):
    """A name has one home, and is exported there as well as by the package."""
    module = load(name)
    for entry in getattr(module, "__all__", ()):
        thing = getattr(module, entry)
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and (thing.__module__ or "").startswith("fedpost."):
            home = sys.modules[thing.__module__]
            assert entry in home.__all__, f"{home.__name__} does not export {entry}"


@pytest.mark.parametrize("name", MODULES)
def test_what_is_exported_is_documented(name):
    module = load(name)
    missing = []
    for entry in getattr(module, "__all__", ()):
        thing = getattr(module, entry)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)) or not (thing.__module__ or "").startswith(
            "fedpost"
        ):
            continue
        if not documented(thing):
            missing.append(entry)
        if inspect.isclass(thing):
            missing += [
                f"{entry}.{attribute}"
                for attribute, member in vars(thing).items()
                if not attribute.startswith("_")
                and (inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod))
                and not documented(getattr(thing, attribute))
                and not documented(member)
            ]
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_nothing_public_is_missing(name):
    """A class or function without a leading underscore is exported, or is only for its own package."""
    module = load(name)
    exported = set(getattr(module, "__all__", ()))
    own = {
        entry
        for entry, thing in vars(module).items()
        if not entry.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and thing.__module__ == name
    }
    assert sorted(own - exported) == []


# ── the root ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_root_exports_a_handful():
    assert len(fedpost.__all__) <= ROOT_NAMES
    assert set(fedpost.__all__) <= set(dir(fedpost))


@pytest.mark.parametrize("name", fedpost.__all__)
def test_the_root_exports_what_is_at_home_elsewhere(name):
    thing = getattr(fedpost, name)
    assert getattr(sys.modules[thing.__module__], name) is thing
    assert name in sys.modules[thing.__module__].__all__


def test_the_root_has_nothing_else():
    with pytest.raises(AttributeError, match="has no attribute 'Sever'"):
        _ = fedpost.Sever
    with pytest.raises(ImportError):
        from fedpost import Sever  # noqa: F401 - it is not there


def test_a_static_reader_sees_the_same_names():
    source = inspect.getsource(fedpost)
    block = source[source.index("if TYPE_CHECKING:") : source.index("__all__")]
    names = re.findall(r"^ +(\w+),$|import (\w+(?:, \w+)*)$", block, re.MULTILINE)
    assert sorted(name for pair in names for name in ",".join(pair).replace(" ", "").split(",") if name) == sorted(
        fedpost.__all__
    )


# ── a fresh interpreter ──────────────────────────────────────────────────────────────────────────────────────────────


def fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    return done.stdout.split()


def test_importing_fedpost_loads_no_extra():
    assert not set(fresh("import fedpost, sys; print(*sys.modules)")) & {*EXTRAS, "numpy", "msgspec"}


@pytest.mark.parametrize("use", ["fedpost.Client", "fedpost.load_tensors", "fedpost.FedAvg", "fedpost.FedpostError"])
def test_using_it_loads_no_extra(use):
    assert not set(fresh(f"import fedpost, sys; {use}; print(*sys.modules)")) & set(EXTRAS)


def test_every_name_of_the_root_loads_no_extra():
    modules = fresh("import fedpost, sys; [getattr(fedpost, n) for n in fedpost.__all__]; print(*sys.modules)")
    assert not set(modules) & set(EXTRAS)


def test_contract_suites_say_what_they_need():
    code = """
import sys
sys.modules["pytest"] = None
try:
    import fedpost.testing
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert " ".join(fresh(code)) == ("MissingExtraError the contract suites need pytest. pip install 'fedpost[test]'")


def test_how_long_an_import_takes(record_property, capsys):
    """Only reported: what a machine is busy with is no fault of the import."""
    code = "import time; t = time.perf_counter(); import fedpost; print(time.perf_counter() - t)"
    seconds = statistics.median(float(fresh(code)[0]) for _ in range(5))
    record_property("import_seconds", seconds)
    with capsys.disabled():
        sys.stdout.write(f"\nimport fedpost: {seconds * 1000:.1f} ms\n")
