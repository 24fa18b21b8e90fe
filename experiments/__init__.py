"""Collecting, training, evaluating, reporting: everything that runs from the command line."""
