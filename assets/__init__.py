"""Scenes and robots as MJCF, one folder each (data only).

Every folder has its own LICENSE and PROVENANCE.md, and opens alone in MuJoCo's viewer.
"""

from importlib.resources import files
from pathlib import Path


def path(name: str) -> Path:
    """Returns the path of an asset, for example `path("point_mass/point_mass.xml")`."""
    return Path(str(files(__name__))) / name
