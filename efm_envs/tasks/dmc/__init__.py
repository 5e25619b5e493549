"""Domains of dm_control's suite as tasks; docs/envs/dm_control.md."""
