"""Names the packages. Everything else about the distribution is in setup.cfg.

This file exists because the `find:` of setup.cfg searches one root, and this project's packages lie in four:
the repository root, `agents/`, `benchmarks/`, and `assets/`, which is itself the package `efm_assets`.
Packages are found, not listed: a forgotten one works in an editable install and is missing from the wheel.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["efm_envs", "efm_envs.*"]),
        *find_packages("agents"),
        *find_packages("benchmarks"),
        "efm_assets",
    ],
    package_dir={
        "efm_agents": "agents/efm_agents",
        "efm_benchmarks": "benchmarks/efm_benchmarks",
        "efm_assets": "assets",
    },
)
