"""A vision-language model as the value: shown what was imagined, how likely does it say yes?

Any server that speaks OpenAI's chat completions and returns log-probabilities will do (vLLM, SGLang,
llama.cpp …). The value is P(yes) / (P(yes) + P(no)) of the first token of the answer; text is never parsed
(as VQAScore does, Lin et al. 2024, arXiv 2404.01291). Pictures come from the world model's ``decode``, or
from an observation where they are real.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..interfaces import ForethoughtError, Latent, Observation, Score

LOG = logging.getLogger(__name__)

QUESTION = (
    "A robot was told: {instruction}. Judging by what the camera shows, has it done so, or is it well on the "
    "way and about to succeed? Answer with one word, yes or no."
)
LEAST_MASS = 0.05
"""Probability of yes and no together below which an answer is neither."""

Pictures: TypeAlias = Mapping[str, np.ndarray]
"""Camera name to ``uint8 [h, w, 3]``."""

Ask: TypeAlias = Callable[[Pictures, str], float]
"""The probability of yes, given pictures and a question; NaN where the answer was neither yes nor no."""


def share_of_yes(tokens: Iterable[tuple[str, float]]) -> float:
    """P(yes) / (P(yes) + P(no)) from alternatives of the first token, (text, log-probability) each.

    Upper and lower case and a space before the word are the same word. NaN where both together have less than
    ``LEAST_MASS``.
    """
    mass = {"yes": 0.0, "no": 0.0}
    for text, logarithm in tokens:
        word = text.strip(" \t\n▁Ġ\"'*.,").lower()
        if word in mass:
            mass[word] += math.exp(logarithm)
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total >= LEAST_MASS else math.nan


class ChatServer:
    """Asks an OpenAI-compatible server one question at a time; safe to use from several threads.

    Args:
        model: Name that the server knows the model by.
        base_url: Where it listens, up to and with ``/v1``.
        timeout: Seconds for one request.
        retries: How often a failed request is tried again.
        key_variable: Environment variable that holds the key; servers of one's own need none.
        least_side: Smaller pictures are enlarged to this side, pixels.
        extra: Further fields of the request, such as
            ``{"chat_template_kwargs": {"enable_thinking": False}}``: a model that thinks first does not
            answer with its first token.

    Raises:
        ForethoughtError: The ``openai`` package is missing.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "http://127.0.0.1:8000/v1",
        *,
        timeout: float = 10.0,
        retries: int = 1,
        key_variable: str = "OPENAI_API_KEY",
        least_side: int = 224,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise ForethoughtError(
                "A verifier speaks to its server through the openai package, which is not installed. "
                "Install the extra: pip install 'forethought[verifier]'."
            ) from error
        key = os.environ.get(key_variable) or "none"
        self.client = OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries)
        self.model, self.base_url, self.least_side = model, base_url, least_side
        self.extra = dict(extra or {})

    def __call__(self, pictures: Pictures, question: str) -> float:
        """See ``Ask``."""
        shown = [
            {"type": "image_url", "image_url": {"url": _data_url(picture, self.least_side)}}
            for picture in pictures.values()
        ]
        content: Any = [*shown, {"type": "text", "text": question}]
        answer = self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": content}],
            max_tokens=1,
            temperature=0.0,
            logprobs=True,
            top_logprobs=20,
            extra_body=self.extra,
        )
        said = answer.choices[0].logprobs if answer.choices else None
        if said is None or not said.content:
            raise ForethoughtError(
                f"The server at {self.base_url} returned no log-probabilities for {self.model!r}, and a "
                "verifier reads nothing else. Use a server that supports logprobs and top_logprobs, such as "
                "vLLM."
            )
        first = said.content[0]
        return share_of_yes((item.token, item.logprob) for item in first.top_logprobs or [first])


def _data_url(picture: np.ndarray, least_side: int) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture, np.uint8))
    scale = least_side / min(image.size)
    if scale > 1:
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


class Verifier:
    """``RewardModel`` that asks about pictures: value is the mean over the questions, spread their deviation.

    Args:
        ask: Answers; called from ``concurrency`` threads at a time.
        questions: With ``{instruction}`` in them. Several wordings make a small ensemble.
        cameras: Which pictures are shown, in this order; None shows all.
        concurrency: Questions on the way at a time; the server batches them.
        patience: Seconds for all questions of one call. What is not answered by then is NaN.
        cached: How many answers are remembered, the longest unused forgotten first.
        decode: Pictures ``uint8 [M, h, w, 3]`` by camera of latents ``[M, ...]``; see ``seen_through``.

    Attributes:
        metadata: What results say about it.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        questions: Sequence[str] = (QUESTION,),
        cameras: Sequence[str] | None = None,
        concurrency: int = 16,
        patience: float = 60.0,
        cached: int = 4096,
        decode: Callable[[Latent], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        if not questions or any("{instruction}" not in question for question in questions):
            raise ForethoughtError(
                f"A verifier's questions must each hold {{instruction}}; got {list(questions)}."
            )
        self.ask, self.questions, self.cameras = ask, tuple(questions), cameras
        self.patience, self.cached, self.decode = patience, cached, decode
        self.metadata = {"model": getattr(ask, "model", None), "questions": list(self.questions)}
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="verifier")
        self._answers: OrderedDict[str, float] = OrderedDict()

    def seen_through(self, world_model: Any) -> Verifier:
        """The same verifier, with the same answers remembered, for what ``world_model`` imagines.

        Raises:
            ForethoughtError: The world model cannot show what it imagines.
        """
        decode = getattr(world_model, "decode", None)
        if not callable(decode):
            raise ForethoughtError(
                f"A verifier looks at pictures, and {type(world_model).__name__} has no decode(latent) that "
                "makes them. Use a world model that has, such as the video model or the simulator."
            )
        bound = copy.copy(self)
        bound.decode = decode
        return bound

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """See ``RewardModel.score``. NaN where a question was not answered in time.

        Raises:
            ForethoughtError: Nothing was answered, the server tells no probabilities, or there is no
                ``decode``.
        """
        if self.decode is None:
            raise ForethoughtError(
                "A verifier does not know how latents look. Bind it to a world model: "
                "verifier.seen_through(model)."
            )
        return self.judge(self.decode(latent), instruction)

    def score_observation(self, observation: Observation) -> Score:
        """How good real pictures are: one value for each row, as in ``score``."""
        return self.judge(observation.images, observation.instruction)

    def judge(self, images: Mapping[str, np.ndarray], instruction: Sequence[str]) -> Score:
        """How good pictures ``uint8 [M, h, w, 3]`` by camera are for M instructions."""
        cameras = list(images) if self.cameras is None else list(self.cameras)
        missing = [name for name in cameras if name not in images]
        if missing or not cameras:
            raise ForethoughtError(
                f"The verifier is to be shown the cameras {cameras}; there are pictures of {list(images)}."
            )
        asked: list[str] = []
        waiting: dict[str, tuple[Pictures, str]] = {}
        for row, text in enumerate(instruction):
            pictures = {name: images[name][row] for name in cameras}
            for question in self.questions:
                spoken = question.replace("{instruction}", text)
                key = _fingerprint(pictures, spoken)
                asked.append(key)
                if key in self._answers:
                    self._answers.move_to_end(key)
                else:
                    waiting[key] = (pictures, spoken)
        known = {key: self._answers[key] for key in asked if key in self._answers}
        known |= self._collect(waiting)
        value = np.array([known[key] for key in asked], np.float32).reshape(-1, len(self.questions))
        return Score(value=value.mean(axis=1), spread=value.std(axis=1))

    def _collect(self, waiting: Mapping[str, tuple[Pictures, str]]) -> dict[str, float]:
        """Answers to new questions, NaN where there is none."""
        futures: dict[str, Future[float]] = {
            key: self._pool.submit(self.ask, *question) for key, question in waiting.items()
        }
        wait(futures.values(), timeout=self.patience)
        found, trouble = {}, None
        for key, future in futures.items():
            found[key] = math.nan
            if not future.done():
                future.cancel()
                trouble = trouble or TimeoutError(f"no answer within {self.patience} s")
            elif isinstance(error := future.exception(), ForethoughtError):
                raise error
            elif error is not None:
                trouble = error
            else:
                found[key] = future.result()
                self._answers[key] = found[key]
        while len(self._answers) > self.cached:
            self._answers.popitem(last=False)
        if trouble is not None:
            failed = sum(math.isnan(answer) for answer in found.values())
            if failed == len(found):
                where = getattr(self.ask, "base_url", "the verifier")
                raise ForethoughtError(
                    f"None of {failed} questions to {where} was answered "
                    f"({type(trouble).__name__}: {trouble}). Start the server, correct base_url and "
                    "model, or allow more time (timeout, patience)."
                ) from trouble
            LOG.warning("%d of %d questions were not answered: %s", failed, len(found), trouble)
        return found


def _fingerprint(pictures: Pictures, question: str) -> str:
    digest = hashlib.sha256(question.encode())
    for name, picture in pictures.items():
        digest.update(f"{name}{picture.shape}".encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()


def load(
    folder: str | Path | None = None,
    *,
    model: str,
    base_url: str = "http://127.0.0.1:8000/v1",
    questions: Sequence[str] = (QUESTION,),
    cameras: Sequence[str] | None = None,
    timeout: float = 10.0,
    retries: int = 1,
    patience: float = 60.0,
    concurrency: int = 16,
    cached: int = 4096,
    key_variable: str = "OPENAI_API_KEY",
    least_side: int = 224,
    extra: Mapping[str, Any] | None = None,
) -> Verifier:
    """A verifier that asks a server; see ``ChatServer`` and ``Verifier``. Nothing is read from ``folder``."""
    del folder
    ask = ChatServer(
        model,
        base_url,
        timeout=timeout,
        retries=retries,
        key_variable=key_variable,
        least_side=least_side,
        extra=extra,
    )
    return Verifier(
        ask,
        questions=questions,
        cameras=cameras,
        concurrency=concurrency,
        patience=patience,
        cached=cached,
    )
