"""What reads: a module for each kind of backbone."""
