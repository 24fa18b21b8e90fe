"""Collect, train, evaluate, and again, until success rises no more."""
