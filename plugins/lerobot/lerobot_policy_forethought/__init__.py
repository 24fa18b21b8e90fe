"""LeRobot's commands with test-time search: `--policy.type=forethought --policy.base_path=<checkpoint>`.

LeRobot imports this package because of its distribution's name, and finds the policy and its processors by
the names of the modules and classes in it.
"""

from .configuration_forethought import ForethoughtConfig

__all__ = ["ForethoughtConfig"]
