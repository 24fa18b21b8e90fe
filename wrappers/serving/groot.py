"""A client of Isaac-GR00T's policy server: ZeroMQ request and reply, msgpack, arrays as ``.npy`` files.

The wire, as in ``gr00t/policy/server_client.py`` (N1.6 and N1.7, https://github.com/NVIDIA/Isaac-GR00T):

    request  {"endpoint": "get_action", "data": {"observation": …, "options": None}, "api_token": …}
    answer   [action, info], or {"error": text}
    array    {"__ndarray_class__": True, "as_npy": bytes}

Servers of N1.5 and before speak torch's pickle; they are not spoken to.
"""

from __future__ import annotations

import io
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from .backoff import Backoff
from .upstream import MEGABYTE, UpstreamLost, UpstreamRefused
from .wire import BadFrame, need

NUMBERS = "biuf"


def pack(message: Any) -> bytes:
    """A message with arrays as ``.npy``."""
    return need("msgpack").packb(message, default=_encoded)


def unpack(message: bytes) -> Any:
    """What a message holds. Nothing is unpickled.

    Raises:
        BadFrame: It is not whole msgpack, or an array in it is not what its header says.
    """
    try:
        return need("msgpack").unpackb(message, object_hook=_decoded)
    except ForethoughtError:
        raise
    except Exception as error:
        raise BadFrame(
            f"A message of {len(message)} bytes is not whole msgpack ({type(error).__name__}: {error})."
        ) from error


def _encoded(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in NUMBERS:
        raise ForethoughtError(
            f"Cannot send a {type(value).__name__} to GR00T: numbers, text and arrays only."
        )
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def _decoded(found: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in found:
        return _array(found.get("as_npy"))
    if "__ModalityConfig_class__" in found:
        said = found.get("as_json")  # text in N1.6, a dictionary in N1.7
        return json.loads(said) if isinstance(said, str) else said
    return found


def _array(data: Any) -> np.ndarray:
    """An array from ``.npy`` bytes; the header must agree with their number before anything is allocated."""
    if not isinstance(data, bytes):
        raise BadFrame(f"An array needs as_npy, bytes; got {type(data).__name__}.")
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_column, dtype = read[version](file)
    except Exception as error:  # numpy raises several kinds
        raise BadFrame(f"An array of {len(data)} bytes has no readable .npy header ({error}).") from error
    rest = data[file.tell() :]
    if dtype.kind not in NUMBERS or dtype.shape or math.prod(shape) * dtype.itemsize != len(rest):
        raise BadFrame(f"An array of {dtype} and shape {list(shape)} does not fit its {len(rest)} bytes.")
    return np.frombuffer(bytearray(rest), dtype).reshape(shape, order="F" if by_column else "C")


class GrootClient:
    """Speaks to a GR00T server, and goes on when it was away. May be called from several threads.

    Args:
        host: Its host.
        port: Its port.
        api_token: Token that it wants, or None.
        timeout: Seconds that it has for an answer; after that the socket is made anew, so that a late answer
            is not taken for that to another question.
        patience: Seconds to go on trying; 0 asks once. To infer twice does no harm; ``reset`` is sent once.
        max_bytes: Largest answer.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5555,
        *,
        api_token: str | None = None,
        timeout: float = 15.0,
        patience: float = 0.0,
        max_bytes: int = 64 * MEGABYTE,
    ) -> None:
        self.address = f"tcp://{host}:{port}"
        self._token, self._timeout, self._max_bytes = api_token, timeout, max_bytes
        self._backoff = Backoff(patience=patience)
        self._socket: Any = None
        self._lock = threading.Lock()
        need("zmq", "groot")

    def ping(self) -> bool:
        """Whether it answers."""
        try:
            return self.call("ping", None, again=False) is not None
        except ForethoughtError:
            return False

    def get_action(
        self, observation: Mapping[str, Any], options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions ``{name: [B, H, D]}`` and information, as ``Gr00tPolicy.get_action`` returns them.

        Args:
            observation: ``{"video": {name: uint8 [B, T, h, w, 3]}, "state": {name: float32 [B, T, D]},
                "language": {name: [[text]]}}``.
            options: What the server's policy understands.

        Raises:
            UpstreamLost: It did not answer.
            UpstreamRefused: It answered with an error.
            ForethoughtError: Its answer is no action.
        """
        answer = self.call("get_action", {"observation": observation, "options": options})
        action, info = answer if isinstance(answer, list) and len(answer) == 2 else (answer, {})
        if not isinstance(action, dict) or not all(
            isinstance(value, np.ndarray) for value in action.values()
        ):
            raise ForethoughtError(
                f"{self.address} answered get_action with a {type(answer).__name__}; expected [action, "
                "info], with an array for each part of the action. Is it a server of GR00T N1.6 or later?"
            )
        return action, info if isinstance(info, dict) else {}

    def reset(self, options: Mapping[str, Any] | None = None) -> Any:
        """An episode starts."""
        return self.call("reset", {"options": options}, again=False)

    def get_modality_config(self) -> dict[str, Any]:
        """Names and time steps of what the server's policy reads and returns, as plain dictionaries."""
        return self.call("get_modality_config", None)

    def call(self, endpoint: str, data: Mapping[str, Any] | None, again: bool = True) -> Any:
        """What an endpoint answers. ``again`` allows asking twice.

        Raises:
            UpstreamLost, UpstreamRefused, BadFrame: It did not answer, answered with an error, or with
                something unreadable.
        """
        request: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            request["data"] = dict(data)
        if self._token:
            request["api_token"] = self._token
        message = pack(request)
        waits = self._backoff.waits() if again else iter(())
        with self._lock:
            while True:
                try:
                    answer = unpack(self._exchange(message))
                    break
                except UpstreamLost:
                    wait = next(waits, None)
                    if wait is None:
                        raise
                    time.sleep(wait)
        if isinstance(answer, dict) and "error" in answer:
            raise UpstreamRefused(f"GR00T's server at {self.address} says: {answer['error']}")
        return answer

    def close(self) -> None:
        """Hangs up."""
        with self._lock:
            self._drop()

    def _exchange(self, message: bytes) -> bytes:
        zmq = need("zmq", "groot")
        if self._socket is None:
            self._socket = zmq.Context.instance().socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, self._max_bytes)
            self._socket.setsockopt(zmq.SNDTIMEO, int(1e3 * self._timeout))
            self._socket.setsockopt(zmq.RCVTIMEO, int(1e3 * self._timeout))
            self._socket.connect(self.address)
        try:
            self._socket.send(message)
            answer = self._socket.recv()
        except zmq.error.ZMQError as error:
            self._drop()
            raise UpstreamLost(
                f"GR00T's server at {self.address} did not answer within {self._timeout:g} s ({error}). Is "
                "it running there, and of N1.6 or later?"
            ) from error
        if answer == b"ERROR":
            raise UpstreamRefused(f"GR00T's server at {self.address} says only ERROR.")
        return answer

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()


class GrootPolicy:
    """A GR00T server as a ``Policy``: N samples are N copies of the observation in one request.

    The server draws its own noise: the same seed does not give the same chunk, and sample 0 is one more draw.

    Args:
        client: Speaks to it.
        action_spec: What the numbers of an action mean, the parts named by ``actions`` in a row.
        horizon: Chunk length H in control steps; the server's may be longer and is cut.
        video: Its camera to ours.
        state: Its part of the state to indices of our proprioception.
        actions: Its parts of the action, in order.
        language: Its key of the task.
    """

    def __init__(
        self,
        client: GrootClient,
        action_spec: ActionSpec,
        horizon: int,
        *,
        video: Mapping[str, str],
        state: Mapping[str, Sequence[int]],
        actions: Sequence[str],
        language: str = "annotation.human.task_description",
    ) -> None:
        self.client = client
        self._spec, self._horizon = action_spec, horizon
        self._video, self._state = dict(video), {name: list(index) for name, index in state.items()}
        self._actions, self._language = tuple(actions), language
        self.cameras = tuple(self._video.values())

    @property
    def action_spec(self) -> ActionSpec:
        """What the numbers of an action mean."""
        return self._spec

    @property
    def horizon(self) -> int:
        """Chunk length H in control steps."""
        return self._horizon

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """N chunks per row, ``[B, N, H, A]``, in one request."""
        rows = np.repeat(np.arange(observation.batch), n)
        seen = observation.rows(rows)
        missing = [camera for camera in self.cameras if camera not in seen.images]
        if missing:
            raise ForethoughtError(f"GR00T is to see cameras {list(self.cameras)}; {missing} are missing.")
        request = {
            "video": {name: seen.images[camera][:, None] for name, camera in self._video.items()},
            "state": {
                name: np.float32(seen.proprioception[:, None, index]) for name, index in self._state.items()
            },
            "language": {self._language: [[text] for text in seen.instruction]},
        }
        action, _ = self.client.get_action(request)
        chunks = self._joined(action)
        if chunks.shape[0] != len(rows) or chunks.shape[1] < self._horizon:
            raise ForethoughtError(
                f"GR00T answered with actions {list(chunks.shape)} to {len(rows)} observations; expected "
                f"[{len(rows)}, {self._horizon} or more, {self._spec.size}]."
            )
        return ActionSamples(
            chunks[:, : self._horizon].reshape(observation.batch, n, self._horizon, self._spec.size)
        )

    def act(self, observation: Observation) -> np.ndarray:
        """The chunk to execute, ``[B, H, A]``."""
        return self.propose(observation, 1, np.zeros(observation.batch, np.int64)).chunks[:, 0]

    def reset(self) -> None:
        """An episode starts; the server is told."""
        self.client.reset()

    def _joined(self, action: Mapping[str, np.ndarray]) -> np.ndarray:
        parts = [action.get(name, action.get(f"action.{name}")) for name in self._actions]
        if any(part is None or part.ndim != 3 for part in parts):
            shapes = {name: list(part.shape) for name, part in action.items()}
            raise ForethoughtError(
                f"GR00T answered with {shapes}; expected [B, H, D] for {list(self._actions)}."
            )
        chunks = np.concatenate([np.asarray(part, np.float32) for part in parts], axis=-1)
        if chunks.shape[-1] != self._spec.size:
            raise ForethoughtError(
                f"GR00T's parts {list(self._actions)} make actions of {chunks.shape[-1]} numbers; the action "
                f"spec has {self._spec.size}."
            )
        return chunks


def connect(
    host: str = "localhost",
    port: int = 5555,
    *,
    action: Mapping[str, Any],
    horizon: int,
    video: Mapping[str, str],
    state: Mapping[str, Sequence[int]],
    actions: Sequence[str],
    language: str = "annotation.human.task_description",
    api_token_variable: str = "GROOT_API_TOKEN",
    timeout: float = 15.0,
    patience: float = 5.0,
) -> GrootPolicy:
    """A GR00T server as a policy, for configurations.

    ``action`` holds the fields of an ``ActionSpec``; the token comes from the environment variable of the
    name given.
    """
    import os

    client = GrootClient(
        host, port, api_token=os.environ.get(api_token_variable), timeout=timeout, patience=patience
    )
    spec = ActionSpec.from_dict(action)
    return GrootPolicy(client, spec, horizon, video=video, state=state, actions=actions, language=language)
