"""Benchmarks: where a policy is tried, and the conventions under which its result counts."""

from .base import Benchmark, Environment, StepResult, Task
from .conventions import CONVENTIONS, Convention, find_convention

__all__ = ["CONVENTIONS", "Benchmark", "Convention", "Environment", "StepResult", "Task", "find_convention"]
