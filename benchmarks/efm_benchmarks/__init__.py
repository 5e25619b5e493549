"""The `efm` command, the recipe, statistics and reports. Needs the extra [agents]."""
