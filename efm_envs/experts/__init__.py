"""Scripted demonstrators, one file a domain: `make_expert` binds one to an env."""

from efm_envs.experts.base import BoundExpert, Expert, make_expert

__all__ = ["BoundExpert", "Expert", "make_expert"]
