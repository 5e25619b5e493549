"""Our envs under the names and units of other packages, so that code written for those runs here. None of them need be installed."""
