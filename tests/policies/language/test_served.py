"""Sampling by a server, against one in this process that speaks the format from a policy."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from tests.policies.language.test_generate import PROMPTS

from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.generate import Completion
from rewardkit.policies.language.served import Server, ServerError
from rewardkit.types import Sample

SIX = Sampling(max_new_tokens=6)


class Fake:
    """A server that writes with a policy. ``fails``: answers 503 so often first. ``hides``: fields left out."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.policy, self.asked = policy, list[dict[str, Any]]()
        self.fails, self.hides, self.reason = 0, set[str](), ""
        self.key: str | None = None
        fake, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200, {"data": [{"id": "tiny"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    fake.key = self.headers.get("Authorization")
                    if fake.fails:
                        fake.fails -= 1
                        return self._say(503, {"error": "busy"})
                    if self.path != "/v1/completions":
                        return self._say(404, {"error": "no such path"})
                    return self._say(200, fake.answer(body))

            def _say(self, code: int, what: Any) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(what).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.inner = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.inner.server_port}/v1"
        threading.Thread(target=self.inner.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        assert set(body["stop_token_ids"]) == self.policy.codec.eos_ids
        options = {k: body[k] for k in ("top_p", "min_p", "temperature")}
        sampling = Sampling(body["max_tokens"], top_k=max(0, body["top_k"]), stop=tuple(body["stop"]), **options)
        found = self.policy._complete(
            [body["prompt"]], body["n"], sampling, [body["seed"] + k for k in range(body["n"])], {}
        )
        return {"choices": [self.choice(i, c) for i, c in enumerate(found)][::-1]}

    def choice(self, index: int, c: Completion) -> dict[str, Any]:
        said = {"tokens": [f"token_id:{i}" for i in c.ids], "token_logprobs": c.logps}
        whole = {
            "index": index,
            "text": "",
            "token_ids": c.ids,
            "logprobs": said,
            "finish_reason": self.reason or {"done": "stop", "cut": "length"}[c.ended],
        }
        return {k: v for k, v in whole.items() if k not in self.hides}


@pytest.fixture
def fake(make: Callable[..., LanguagePolicy], monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("no_proxy", "*")
    server = Fake(make(keep_start=False))
    yield server
    server.inner.shutdown()
    server.inner.server_close()


def test_a_served_rollout_is_one_of_the_policy(fake: Fake, make: Callable[..., LanguagePolicy]) -> None:
    policy = make()
    policy.server = Server(fake.url, key="k")
    rollout = policy.sample(PROMPTS, n=3, sampling=Sampling(max_new_tokens=20, temperature=1.0, top_k=40), seed=0)
    assert rollout.inputs["prompt_ids"][::3] == [policy.codec.prompt(p) for p in PROMPTS]
    assert rollout.group.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-4)
    assert fake.key == "Bearer k"
    assert {b["model"] for b in fake.asked} == {"tiny"}
    assert sorted(b["prompt"] for b in fake.asked) == sorted(rollout.inputs["prompt_ids"][::3])
    assert {(b["n"], b["top_k"], b["min_p"], b["repetition_penalty"]) for b in fake.asked} == {(3, 40, 0.0, 1.0)}
    # A frozen view has other weights, and samples by itself.
    policy.at("start").sample(PROMPTS, sampling=SIX, seed=0)
    assert len(fake.asked) == 3


def test_a_request_with_a_seed_of_its_own_depends_on_nothing_else(fake: Fake) -> None:
    policy = fake.policy._twin("live", fake.policy.module)
    policy.server = Server(fake.url)
    together = policy.sample(PROMPTS, n=2, sampling=SIX, seed=[4, 5, 6]).inputs["output_ids"]
    assert policy.sample(PROMPTS[1:2], n=2, sampling=SIX, seed=5).inputs["output_ids"] == together[2:4]
    assert together[0] != together[1]


@pytest.mark.parametrize(
    ("kind", "options", "own"),
    [
        ("raw", {}, False),
        ("raw", {"top_p": 0.8}, False),
        ("raw", {"temperature": 0.7}, True),
        ("processed", {"temperature": 0.7}, False),
        ("processed", {"top_p": 0.8}, True),
        ("none", {}, True),
    ],
)
def test_log_probs_of_another_distribution_are_computed_again(
    kind: Any, options: dict[str, float], own: bool, fake: Fake, make: Callable[..., LanguagePolicy]
) -> None:
    """The server's weights are others here: whose the log-probs are shows."""
    policy = make(keep_start=False)
    with torch.no_grad():
        policy.module.lm_head.weight.mul_(0.5)
    policy.server = Server(fake.url, logprobs=kind)
    rollout = policy.sample(PROMPTS, n=2, sampling=Sampling(max_new_tokens=6, **options), seed=0)
    with torch.no_grad():
        mine, theirs = (p.evaluate(rollout)["logps"] for p in (policy, fake.policy))
    assert not torch.allclose(mine, theirs, atol=0.1)
    assert torch.allclose(rollout["old_logps"], mine if own else theirs, atol=1e-4)


def test_stop_strings_end_and_limits_cut(fake: Fake, make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    policy.server = Server(fake.url)
    wild = Sampling(max_new_tokens=12, temperature=3.0, stop=("e",))
    samples = policy.sample(PROMPTS, n=8, sampling=wild, seed=0).samples
    assert {s.ended for s in samples} == {"done", "cut"}
    assert not any("e" in s.output for s in samples)
    assert all(b["stop"] == ["e"] for b in fake.asked)


def test_the_server_is_brought_the_weights_when_they_are_new(fake: Fake, make: Callable[..., LanguagePolicy]) -> None:
    policy, brought = make(keep_start=False), list[str]()
    policy.server = Server(fake.url, refresh=lambda p: brought.append(p.version))
    for _ in range(2):
        policy.sample(["x"], sampling=SIX, seed=0)
    with torch.no_grad():
        policy.module.lm_head.weight.mul_(0.5)
    policy.sample(["x"], sampling=SIX, seed=0)
    assert len(brought) == len(set(brought)) == 2


def test_a_busy_server_is_asked_again(fake: Fake, make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    fake.fails = 2
    policy.server = Server(fake.url, wait=0.01)
    assert len(policy.sample(["x"], sampling=SIX, seed=0)) == 1
    fake.fails = 9
    policy.server = Server(fake.url, wait=0.01, retries=1)
    with pytest.raises(ServerError, match=rf"{fake.url}/completions answered 503.*2 times"):
        policy.sample(["x"], sampling=SIX, seed=0)


def test_what_a_server_did_not_do_is_said_with_its_address(fake: Fake, make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    policy.server = Server(fake.url + "/wrong", model="tiny")
    with pytest.raises(ServerError, match=r"/v1/wrong/completions answered 404.*no such path"):
        policy.sample(["x"], sampling=SIX)
    policy.server = Server("http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9/v1/models did not answer"):
        policy.sample(["x"], sampling=SIX)
    policy.server = Server(fake.url)
    fake.hides = {"token_ids"}
    assert len(policy.sample(["x"], sampling=SIX).inputs["output_ids"][0]) > 0, "tokens carry their ids too"
    fake.hides = {"token_ids", "logprobs"}
    with pytest.raises(ServerError, match="no token ids"):
        policy.sample(["x"], sampling=SIX)
    fake.hides = {"logprobs"}
    with pytest.raises(ServerError, match="logprobs='none'"):
        policy.sample(["x"], sampling=SIX)
    fake.hides, fake.reason = set(), "abort"
    with pytest.raises(ServerError, match="'abort'"):
        policy.sample(["x"], sampling=SIX)


class Twice:
    """A game of two turns."""

    def __init__(self) -> None:
        self.said = 0

    def reset(self, sample: Sample) -> list[dict[str, Any]]:
        return [{"role": "user", "content": "how are you?"}]

    def step(self, message: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        self.said += 1
        return [{"role": "user", "content": "and you?"}], self.said == 2

    def snapshot(self) -> Any:
        return lambda: None

    def state(self) -> dict[str, Any]:
        return {"said": self.said}


def test_games_are_played_through_the_server(fake: Fake, make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False, max_length=96)
    policy.server = Server(fake.url)
    wild = Sampling(max_new_tokens=20, stop=("a", "e", "o", " "))
    rollout = policy.sample(["x"], 4, env=Twice, sampling=wild, seed=1)
    assert {2} == {s.hidden["state"]["said"] for s in rollout.samples if s.ended == "done"}
    with torch.no_grad():
        found = policy.evaluate(rollout)["logps"] * rollout.mask
    assert torch.allclose(found, rollout["old_logps"], atol=1e-4)
