"""Measurements of the search itself: no robot, no benchmark of tasks, random weights."""
