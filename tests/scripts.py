"""Loading a script of the repository as a module."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_script(path: str) -> ModuleType:
    """Returns the module of a script, its path from the repository's root; what stands under `if __name__ == "__main__"` is not run."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem + "_script", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
