"""Training scripts: one a network family, run as `python -m train.<script>`."""
