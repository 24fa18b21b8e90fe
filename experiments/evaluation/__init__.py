"""Paired comparison of policies and planners."""
