"""Other projects' interfaces on our envs. Each module imports that project, where it cannot do without, and names the extra that has it."""
