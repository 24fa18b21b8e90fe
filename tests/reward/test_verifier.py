"""A verifier reads probabilities from a server: over HTTP where the openai package is installed."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from forethought.interfaces import ForethoughtError, Observation, RewardModel
from forethought.reward import verifier
from forethought.reward.verifier import ChatServer, Verifier, share_of_yes
from forethought.wrappers.models import seen_through


def pictures(*brightness):
    grey = np.array(brightness, np.uint8)[:, None, None, None]
    return {"wrist": np.broadcast_to(grey, (len(grey), 8, 8, 3)).copy()}


class Eye:
    """A world model whose latents are brightnesses."""

    def decode(self, latent):
        return pictures(*latent)


class Brightness:
    """Says yes as often as the first picture is bright."""

    model = "fake"

    def __init__(self):
        self.questions = []

    def __call__(self, shown, question):
        self.questions.append(question)
        return float(next(iter(shown.values())).mean() / 255)


def test_the_share_of_yes_counts_every_spelling():
    tokens = [
        ("yes", math.log(0.3)),
        (" Yes", math.log(0.3)),
        ("NO.", math.log(0.2)),
        ("maybe", math.log(0.2)),
    ]
    assert share_of_yes(tokens) == pytest.approx(0.75)


def test_an_answer_that_is_neither_is_not_a_number():
    assert math.isnan(share_of_yes([("The", math.log(0.97)), ("yes", math.log(0.01))]))
    assert math.isnan(share_of_yes([]))


def test_what_is_imagined_is_scored_by_what_it_looks_like():
    model = seen_through(Verifier(Brightness()), Eye())
    assert isinstance(model, RewardModel)
    score = model.score(np.array([0, 51, 255]), ["lift the cup"] * 3)
    np.testing.assert_allclose(score.value, [0, 0.2, 1], atol=1e-6)
    assert score.value.dtype == np.float32 and (score.spread == 0).all()


def test_real_pictures_are_scored_too():
    observation = Observation(pictures(255, 0), np.zeros((2, 8), np.float32), ("a", "b"))
    assert Verifier(Brightness()).score_observation(observation).value.tolist() == [1, 0]


def test_the_question_names_the_instruction_of_each_row():
    ask = Brightness()
    Verifier(ask, questions=("Is {instruction} done?",)).judge(pictures(1, 2), ["one", "two"])
    assert sorted(ask.questions) == ["Is one done?", "Is two done?"]


def test_wordings_are_an_ensemble():
    def ask(shown, question):
        return 0.2 if question.startswith("a") else 0.6

    score = Verifier(ask, questions=("a {instruction}", "b {instruction}")).judge(pictures(1), ["x"])
    assert score.value[0] == pytest.approx(0.4) and score.spread[0] == pytest.approx(0.2)


def test_the_same_picture_is_asked_about_once():
    ask = Brightness()
    model = Verifier(ask)
    for _ in range(2):
        model.judge(pictures(5, 5, 6), ["x"] * 3)
    assert len(ask.questions) == 2
    model.judge(pictures(5), ["y"])
    assert len(ask.questions) == 3
    model.seen_through(Eye()).score(np.array([5]), ["y"])
    assert len(ask.questions) == 3


def test_no_more_answers_are_remembered_than_asked_for():
    ask = Brightness()
    model = Verifier(ask, cached=2)
    model.judge(pictures(1, 2, 3), ["x"] * 3)
    assert len(model._answers) == 2
    np.testing.assert_allclose(model.judge(pictures(1, 2, 3), ["x"] * 3).value * 255, [1, 2, 3], rtol=1e-5)


def test_questions_are_asked_side_by_side():
    meet = threading.Barrier(4, timeout=20)

    def ask(shown, question):
        meet.wait()
        return 0.5

    assert (Verifier(ask, concurrency=4).judge(pictures(1, 2, 3, 4), ["x"] * 4).value == 0.5).all()


def test_a_late_answer_is_not_a_number_and_the_others_count(caplog):
    release = threading.Event()

    def ask(shown, question):
        if shown["wrist"].max() == 2:
            release.wait(20)
        return 0.5

    score = Verifier(ask, patience=0.5).judge(pictures(1, 2), ["x"] * 2)
    release.set()
    assert score.value[0] == 0.5 and math.isnan(score.value[1])
    assert "1 of 2" in caplog.text


def test_no_answer_at_all_is_an_error():
    def ask(shown, question):
        raise OSError("nobody home")

    with pytest.raises(ForethoughtError, match="nobody home"):
        Verifier(ask).judge(pictures(1), ["x"])


def test_what_cannot_be_seen_cannot_be_verified():
    with pytest.raises(ForethoughtError, match="decode"):
        seen_through(Verifier(Brightness()), object())
    with pytest.raises(ForethoughtError, match="seen_through"):
        Verifier(Brightness()).score(np.zeros(1), ["x"])
    with pytest.raises(ForethoughtError, match="front"):
        Verifier(Brightness(), cameras=["front"]).judge(pictures(1), ["x"])
    with pytest.raises(ForethoughtError, match="instruction"):
        Verifier(Brightness(), questions=("Is it done?",))


def test_other_reward_models_need_no_world_model():
    plain = object()
    assert seen_through(plain, Eye()) is plain


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ForethoughtError, match=r"forethought\[verifier\]"):
        verifier.load(model="fake")


class Server(ThreadingHTTPServer):
    """Speaks the part of the protocol that a verifier uses; the brighter a picture, the surer its yes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.fail, self.blind, self.slow = [], 0, False, 0.0

    def handle_error(self, request, client_address):
        """A client that gave up is no news, and would reach the standard error of whatever test is next."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, asked))
        if self.server.fail > 0:
            self.server.fail -= 1
            self._reply(500, {"error": {"message": "busy"}})
            return
        url = next(part for part in asked["messages"][0]["content"] if part["type"] == "image_url")
        data = base64.b64decode(url["image_url"]["url"].split(",", 1)[1])
        bright = np.asarray(Image.open(io.BytesIO(data))).mean() / 255
        if self.server.slow and bright > 0.9:
            time.sleep(self.server.slow)
        tokens = [(" No", 0.8 * (1 - bright)), ("Yes", 0.8 * bright), ("Well", 0.2)]
        tops = [{"token": text, "logprob": math.log(max(p, 1e-9)), "bytes": None} for text, p in tokens]
        content = None if self.server.blind else {"content": [{**tops[0], "top_logprobs": tops}]}
        message = {
            "role": "assistant",
            "content": "Yes, certainly!",
        }  # what it says and what it thinks differ
        choice = {"index": 0, "finish_reason": "length", "message": message, "logprobs": content}
        self._reply(
            200,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": asked["model"],
                "choices": [choice],
            },
        )

    def _reply(self, status, body):
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@pytest.fixture
def server():
    pytest.importorskip("openai")
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def url_of(server):
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def test_probabilities_are_read_from_the_server_and_not_its_words(server):
    model = verifier.load(model="tiny", base_url=url_of(server)).seen_through(Eye())
    np.testing.assert_allclose(
        model.score(np.array([0, 102, 204]), ["x"] * 3).value, [0, 0.4, 0.8], atol=1e-3
    )
    path, asked = server.requests[0]
    assert path == "/v1/chat/completions" and asked["model"] == "tiny"
    assert asked["max_tokens"] == 1 and asked["logprobs"] is True and asked["temperature"] == 0


def test_small_pictures_are_enlarged_and_extra_fields_travel(server):
    ask = ChatServer(
        "tiny", url_of(server), least_side=32, extra={"chat_template_kwargs": {"thinking": False}}
    )
    ask({"wrist": np.full((8, 16, 3), 255, np.uint8)}, "Well?")
    asked = server.requests[0][1]
    parts = asked["messages"][0]["content"]
    image = Image.open(io.BytesIO(base64.b64decode(parts[0]["image_url"]["url"].split(",")[1])))
    assert image.size == (64, 32) and parts[1]["text"] == "Well?"
    assert asked["chat_template_kwargs"] == {"thinking": False}


def test_a_failed_request_is_tried_again(server):
    server.fail = 1
    model = verifier.load(model="tiny", base_url=url_of(server))
    assert model.judge(pictures(255), ["x"]).value[0] == pytest.approx(1, abs=1e-3)
    assert len(server.requests) == 2


def test_a_server_without_probabilities_is_refused(server):
    server.blind = True
    with pytest.raises(ForethoughtError, match="log-probabilities"):
        verifier.load(model="tiny", base_url=url_of(server)).judge(pictures(1), ["x"])


def test_a_slow_request_ends_at_its_timeout(server):
    server.slow = 5.0
    model = verifier.load(model="tiny", base_url=url_of(server), timeout=1.0, retries=0)
    score = model.judge(pictures(0, 255), ["x"] * 2)
    assert score.value[0] == pytest.approx(0, abs=1e-3) and math.isnan(score.value[1])


def test_nobody_at_the_address_is_an_error_that_says_so():
    pytest.importorskip("openai")
    model = verifier.load(model="tiny", base_url="http://127.0.0.1:9/v1", retries=0, timeout=2.0)
    with pytest.raises(ForethoughtError, match="127.0.0.1:9"):
        model.judge(pictures(1), ["x"])
