"""The tasks, one file (or one folder) a domain. They know nothing of rewards."""
