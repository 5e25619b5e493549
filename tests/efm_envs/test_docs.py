"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import efm_envs

MODULES = ["efm_envs", *(module.name for module in pkgutil.walk_packages(efm_envs.__path__, "efm_envs."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(bool(test.examples) for module in modules for test in finder.find(module)) >= 4
