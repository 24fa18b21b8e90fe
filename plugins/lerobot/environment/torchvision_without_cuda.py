"""Lets `import torchvision` pass beside a torch without CUDA.

The registry's torchvision wheels are built against CUDA. Beside a CPU build of torch their library of
compiled operators does not load, and then the import stops at the first one that it describes (`operator
torchvision::nms does not exist`; https://github.com/pytorch/vision/issues/9085). LeRobot needs torchvision's
networks and image transforms, which are Python, and none of these operators. So where the library does not
load, the two that the import describes are declared here, without an implementation: calling one still fails.

`make test-lerobot` copies this file into the environment with a `.pth` file that imports it, so that it also
works in programs that are not ours, such as `lerobot-eval`. Importing it costs nothing until somebody imports
torchvision.
"""

import importlib.util
import sys
from pathlib import Path

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class BeforeTorchvision:
    """Finds nothing; being asked for torchvision, it prepares the ground first."""

    def __init__(self):
        self.declared = None  # forgotten when the object that declared them is

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            self.prepare(importlib.util.find_spec(name))

    def prepare(self, spec):
        import torch

        libraries = list(Path(spec.origin).parent.glob("_C*.so")) if spec is not None and spec.origin else []
        try:
            for library in libraries:
                torch.ops.load_library(library)
        except OSError:
            self.declared = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                self.declared.define(operator)


finder = BeforeTorchvision()
sys.meta_path.insert(0, finder)
