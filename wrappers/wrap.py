"""Three lines to look ahead: ``wrap`` gives a policy of the same type whose actions were searched for."""

from __future__ import annotations

import copy
import functools
import inspect
import random
import types
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError, Observation, Planner, Policy, Reasoner
from . import policies, seeing
from .controller import Controller
from .guard import Guard
from .limits import Limits
from .lookahead import Lookahead, fresh
from .models import Models, load_models
from .observations import from_call

_COPIED = (list, dict, set, deque, np.ndarray, np.random.Generator, np.random.RandomState, random.Random)
_REGISTRIES = ("_parameters", "_buffers", "_modules")


def wrap(
    policy: Any,
    models: str | Path | Models | None = None,
    planner: str | Planner = "forethought",
    *,
    observation: Callable[..., Observation] | None = None,
    method: str | None = None,
    action_spec: ActionSpec | None = None,
    horizon: int | None = None,
    gripper_open: float | None = None,
    processors: Any = None,
    reasoner: Reasoner | None = None,
    guard: Guard | Limits | None = None,
    samples: int | None = None,
    deadline_ms: float | None = None,
    dry_run: bool = False,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A policy that looks ahead, of the same type and with the same methods; the one given stays as it is.

    The new object shares weights and other parts with the given one. Its own containers, arrays and random
    generators are copies, so that neither disturbs the other. ``wrapped.forethought`` has the latest decision
    and the counters.

    Args:
        policy: The reference policy, an object with a method like propose, act, infer or predict, or a
            callable.
        models: A models folder, the name of a shipped one, or loaded models. Not needed when ``planner`` is
            an object.
        planner: The name of a preset, or a planner.
        observation: From the arguments that the policy is called with to an Observation. Not needed where the
            policy gets an Observation or a dictionary with the usual keys, nor where ``seeing`` says it.
        method: The method to take over, when it has an unusual name.
        action_spec: What the numbers of an action mean; by default what the policy or the models say.
        horizon: Chunk length H in control steps; by default the models'.
        gripper_open: The environment's gripper command for open, where the policy writes 1 for open and 0
            for closed, as OpenVLA does, and the environment does not. Of OpenVLA on known data it is known.
        processors: The pre- and the postprocessor of a policy that keeps them outside of itself (LeRobot); by
            default those saved beside its weights.
        reasoner: Looks at the observation before the policy does (only where the policy takes our
            Observation).
        guard: Looks at the chunk last; by default it clips to the action bounds. ``Limits`` of a robot make
            one that keeps them.
        samples: Chunks asked of the policy, where it can give several; see ``Controller``.
        deadline_ms: Wall time after which the planner is given up; None waits.
        dry_run: Decide, and let the policy act as if it were not wrapped. ``wrapped.forethought.last`` is
            what would have been done.
        seed: Seed of all draws.
        **options: Options of the preset, such as ``simulations``. Where none names a size, ``forethought``
            takes width, depth and wave from the cost that the world model declares.

    Raises:
        ForethoughtError: Something does not fit together; says what, and what to do.
    """
    if isinstance(policy, type):
        raise ForethoughtError(
            f"wrap needs a policy; got the class {policy.__name__}. Give an instance of it."
        )
    if isinstance(getattr(policy, "forethought", None), Lookahead):
        raise ForethoughtError(
            "This policy is wrapped already. Give wrap the result of forethought.unwrap(policy)."
        )
    if isinstance(models, (str, Path)):
        models = load_models(models)
    if models is not None and not isinstance(models, Models):
        raise ForethoughtError(
            f"models must be a folder, the name of a shipped one, or a Models object; got "
            f"{type(models).__name__}."
        )
    models_spec, models_horizon = (models.action_spec, models.horizon) if models else (None, None)
    settings = policies.Settings(
        observe=observation or functools.partial(_observe, models.cameras if models else ()),
        method=method,
        action_spec=action_spec or models_spec,
        horizon=models_horizon if horizon is None else horizon,
        gripper_open=gripper_open,
        told=observation is not None,
        processors=processors,
    )
    body = _body(policy)
    adapter = policies.adapt(body, settings)
    chooser = _planner(planner, models, adapter.policy.action_spec, options)
    driven = {"reasoner": reasoner, "samples": samples, "deadline_ms": deadline_ms}

    def another(policy: Policy) -> Controller:
        if callable(getattr(guard, "reset", None)):
            raise ForethoughtError(
                f"Several episodes at once need a guard each, and this {type(guard).__name__} remembers one. "
                "Hand wrap(guard=Limits(…)) instead: a guard is then made for every episode."
            )
        return Controller(policy, fresh(chooser), guard=guard, **driven)

    lookahead = Lookahead(
        Controller(adapter.policy, chooser, guard=guard, **driven), seed, another, dry_run=dry_run
    )
    methods = dict(adapter.methods(lookahead))
    methods["reset"] = lookahead.begin = _reset(body, lookahead, adapter.on_reset)
    if _is_function(policy):
        return WrappedFunction(policy, lookahead, methods["__call__"], methods["reset"])
    if not hasattr(policy, "reset"):
        del methods["reset"]
    return _same_type(policy, body, methods, lookahead)


def unwrap(policy: Any) -> Any:
    """The policy that was given to ``wrap``; anything else as it is."""
    return getattr(policy, "__forethought_original__", policy)


class WrappedFunction:
    """A function that looks ahead. ``reset`` starts an episode, ``forethought`` has the latest decision."""

    def __init__(
        self,
        function: Callable[..., Any],
        lookahead: Lookahead,
        call: Callable[..., Any],
        reset: Callable[..., None],
    ) -> None:
        functools.update_wrapper(self, function)
        self.__forethought_original__ = function
        self.forethought = lookahead
        self.reset = reset
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def _observe(cameras: tuple[str, ...], *args: Any, **kwargs: Any) -> Observation:
    args, kwargs = seeing.current() or (args, kwargs)
    observation = from_call(args, kwargs, cameras)
    missing = [camera for camera in cameras if camera not in observation.images]
    if missing:
        raise ForethoughtError(
            f"The models look at cameras {list(cameras)}; the observation has {list(observation.images)}. "
            "Give them under these names, or hand wrap(observation=...) a function that does."
        )
    return observation


def _planner(
    planner: str | Planner, models: Models | None, spec: ActionSpec, options: Mapping[str, Any]
) -> Planner:
    if not isinstance(planner, str):
        if options:
            raise ForethoughtError(
                f"Unknown arguments {sorted(options)}: a planner object brings its own options."
            )
        return planner
    from ..planner import PRESETS

    if planner not in PRESETS:
        raise ForethoughtError(f"Unknown planner {planner!r}; the presets are {sorted(PRESETS)}.")
    if models is None:
        raise ForethoughtError(
            f"The planner {planner!r} needs models: wrap(policy, models=...) with a folder that "
            "`forethought train "
            "models` wrote, the name of a shipped one, or a Models object."
        )
    preset = PRESETS[planner]
    options = {**_sizes(planner, models, options), **options}
    try:
        inspect.signature(preset).bind(models.world_model, models.reward_model, action_spec=spec, **options)
    except TypeError as error:
        accepted = sorted(
            set(inspect.signature(preset).parameters) - {"world_model", "reward_model", "action_spec"}
        )
        raise ForethoughtError(
            f"The planner {planner!r} does not take these options ({error}); it takes {accepted}."
        ) from error
    return preset(models.world_model, models.reward_model, action_spec=spec, memory=models.memory, **options)


SIZES = ("simulations", "milliseconds", "children", "depth", "wave")
"""Options of a search that a world model's declared cost decides where nobody names one of them."""


def _sizes(planner: str, models: Models, options: Mapping[str, Any]) -> dict[str, int]:
    from ..planner.fitting import declared_cost, search_shape

    cost = declared_cost(models.world_model)
    if planner != "forethought" or cost is None or set(options) & set(SIZES):
        return {}
    return asdict(search_shape(cost, memory=models.memory is not None))


def _is_function(policy: Any) -> bool:
    """Whether it is a function and not an object that can also be called."""
    kinds = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
    return isinstance(policy, kinds)


def _reset(body: Any, lookahead: Lookahead, on_reset: Callable[[], None]) -> Callable[..., Any]:
    def reset(*args: Any, **kwargs: Any) -> Any:
        lookahead.reset()
        on_reset()
        own = getattr(body, "reset", None)
        return own(*args, **kwargs) if callable(own) else None

    return reset


def _slots(kind: type) -> list[str]:
    names = []
    for base in kind.__mro__:
        declared = base.__dict__.get("__slots__", ())
        names += [declared] if isinstance(declared, str) else list(declared)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _body(policy: Any) -> Any:
    """A second object of the same class and state; a change of its own state does not reach the first."""
    if _is_function(policy):
        return policy
    kind = type(policy)
    try:
        body = object.__new__(kind)
    except TypeError:  # built on a type of the interpreter
        body = copy.copy(policy)
    for name, value in getattr(policy, "__dict__", {}).items():
        shared = name in _REGISTRIES and hasattr(policy, "state_dict")
        body.__dict__[name] = copy.deepcopy(value) if _is_random(value) else value
        if type(value) in _COPIED and not _is_random(value) and not shared:
            body.__dict__[name] = copy.copy(value)
    for name in _slots(kind):
        if hasattr(policy, name):
            object.__setattr__(body, name, getattr(policy, name))
    return body


def _is_random(value: Any) -> bool:
    return isinstance(value, (np.random.Generator, np.random.RandomState, random.Random))


def _same_type(
    original: Any, body: Any, methods: Mapping[str, Callable[..., Any]], lookahead: Lookahead
) -> Any:
    """An object of a subclass of the original's class, with some methods in place of its own.

    It has the body's state (one ``__dict__`` for both), and the body has the methods as they were written:
    when these call one another they do not look ahead within looking ahead.
    """
    kind = type(original)
    members: dict[str, Any] = {
        "forethought": lookahead,
        "__forethought_original__": original,
        "__reduce_ex__": _refuse_to_pickle,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    has_dict = hasattr(body, "__dict__")
    if not has_dict:
        members["__slots__"] = ()
        members |= {name: _forwarded(body, name) for name in _slots(kind)}
    for name, function in methods.items():
        members[name] = _method(function, kind, name, body)
    try:
        subclass = types.new_class(
            kind.__name__, (kind,), exec_body=lambda namespace: namespace.update(members)
        )
        wrapped = object.__new__(subclass)
        if has_dict:
            object.__setattr__(wrapped, "__dict__", body.__dict__)
    except TypeError as error:
        raise ForethoughtError(
            f"Cannot make a subclass of {kind.__name__} that looks ahead ({error}). "
            f"Wrap one of its methods instead: forethought.wrap(policy.{next(iter(methods))}, …)."
        ) from error
    return wrapped


def _method(function: Callable[..., Any], kind: type, name: str, body: Any) -> Any:
    """What stands for a method in the subclass; looks like the original from outside."""
    on_object = name in getattr(body, "__dict__", {})
    original = getattr(body if on_object else kind, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    if not on_object:
        return method
    # Only a property is found before what was set on the object itself.
    return property(lambda self: functools.wraps(original)(functools.partial(method, self)))


def _forwarded(body: Any, name: str) -> property:
    return property(
        lambda self: getattr(body, name),
        lambda self, value: object.__setattr__(body, name, value),
        lambda self: object.__delattr__(body, name),
    )


def _refuse_to_pickle(self: Any, protocol: Any) -> Any:
    raise ForethoughtError(
        "A wrapped policy cannot be copied, pickled or sent to another process: it holds its planner. Send "
        "forethought.unwrap(policy) and wrap it there, or save its state_dict()."
    )
