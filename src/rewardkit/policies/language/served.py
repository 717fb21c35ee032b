"""Completions from a server that speaks OpenAI's completions API, such as vLLM's, in the place of the sampling loop."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from rewardkit.policies.language.batch import Row
from rewardkit.policies.language.generate import Completion
from rewardkit.policies.language.sampling import Sampling
from rewardkit.policies.language.turns import padded
from rewardkit.policies.modes import evaluating
from rewardkit.types import Rollout, Sample

_AGAIN = (408, 429, 500, 502, 503, 504)


class ServerError(RuntimeError):
    """What a server did not do, with its address."""


@dataclass(eq=False)
class Server:
    """A server with the policy's weights: ``policy.server = Server("http://host:8000/v1")``.

    From then on the live policy samples there, games included; all else is the policy's own. Prompts and completions
    travel as token ids (vLLM's ``return_token_ids``), so nothing is tokenised twice. One request a start asks for all
    its completions, with the seed of its first.

    The server's log-probs are ``old_logps`` where they are those of the untruncated distribution at the sampling
    temperature: raw ones (vLLM's default) at temperature 1, processed ones (``--logprobs-mode processed_logprobs``)
    without truncation. Else the policy computes them by ``evaluate``. The server's own also account for its being
    less exact than the policy, or some updates behind.

    Args:
        url: of the API, with ``/v1``. model: its name there; default: the first that the server lists.
        key: sent as a bearer token. logprobs: what the server returns, as above; ``none`` for any others.
        refresh: called with the policy before it samples with weights that it has not been called with, to bring them
            to the server. Without it the server's weights stay what they are.
        timeout: seconds for one request. retries: after a connection that failed or a busy server; the wait doubles
            from ``wait`` seconds. parallel: requests at one time.
    """

    url: str
    model: str | None = None
    key: str | None = None
    logprobs: Literal["raw", "processed", "none"] = "raw"
    refresh: Callable[[Any], None] | None = None
    timeout: float = 600.0
    retries: int = 4
    wait: float = 1.0
    parallel: int = 64
    _sent: str | None = field(default=None, init=False, repr=False)

    def exact(self, sampling: Sampling) -> bool:
        """Whether the server's log-probs are those that ``evaluate`` gives.

        >>> Server("http://localhost/v1").exact(Sampling(top_p=0.9)), Server("http://localhost/v1").exact(
        ...     Sampling(temperature=0.7))
        (True, False)
        """
        if self.logprobs == "raw":
            return sampling.temperature == 1
        return self.logprobs == "processed" and not sampling.truncates and not sampling.greedy

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        limits: Sequence[int],
        eos_ids: frozenset[int],
    ) -> list[Completion]:
        """``n`` completions for each prompt, those of one prompt together, with the server's log-probs.

        Args:
            seeds: of each completion; each prompt's first is sent. limits: of each prompt, most new tokens.
            eos_ids: any of these ends a completion.

        Raises:
            ServerError: for a server that does not answer, refuses, or returns no token ids.
        """
        if self.model is None:
            self.model = str(self._json("models")["data"][0]["id"])
        same = {"model": self.model, "n": n, **_options(sampling, eos_ids)}
        asked = [
            {"prompt": list(prompt), "max_tokens": limit, "seed": seed, **same}
            for prompt, limit, seed in zip(prompts, limits, seeds[::n], strict=True)
        ]
        with ThreadPoolExecutor(min(self.parallel, len(asked))) as pool:
            answers = list(pool.map(lambda body: self._json("completions", body), asked))
        return [self._read(choice) for answer in answers for choice in self._choices(answer, n)]

    def follow(self, policy: Any) -> None:
        """Call ``refresh`` if the policy has weights that it has not been called with."""
        if self.refresh is not None and policy.version != self._sent:
            self.refresh(policy)
            self._sent = policy.version

    def _choices(self, answer: dict[str, Any], n: int) -> list[dict[str, Any]]:
        choices = sorted(answer["choices"], key=lambda c: c["index"])
        if len(choices) != n:
            raise ServerError(f"{self.url} gave {len(choices)} completions where {n} were asked for")
        return choices

    def _read(self, choice: dict[str, Any]) -> Completion:
        said = choice.get("logprobs") or {}
        tokens, ids = said.get("tokens") or [], choice.get("token_ids")
        if ids is None and tokens and all(t.startswith("token_id:") for t in tokens):
            ids = [int(t.removeprefix("token_id:")) for t in tokens]
        if ids is None:
            raise ServerError(f"{self.url} returns no token ids, which training needs: vLLM does from 0.10.2 on")
        logps = said.get("token_logprobs") or []
        if self.logprobs != "none" and len(logps) != len(ids):
            raise ServerError(f"{self.url} gave {len(logps)} log-probs for {len(ids)} tokens: use logprobs='none'")
        if choice["finish_reason"] not in ("stop", "length"):
            raise ServerError(f"{self.url} ended a completion by {choice['finish_reason']!r}")
        ended = "done" if choice["finish_reason"] == "stop" else "cut"
        return Completion(list(ids), [float(x) for x in logps], ended)

    def _json(self, path: str, body: Any = None) -> dict[str, Any]:
        """The answer to a request; tried again where that may help."""
        address = f"{self.url.rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            try:
                request = urllib.request.Request(address, data, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return dict(json.load(answer))
            except urllib.error.HTTPError as error:
                said = f"answered {error.code}: {error.read().decode(errors='replace')[:500]}"
                if error.code not in _AGAIN:
                    raise ServerError(f"{address} {said}") from error
            except (OSError, ValueError) as error:
                said = f"did not answer ({error})"
            if attempt < self.retries:
                time.sleep(self.wait * 2**attempt)
        raise ServerError(f"{address} {said}, {self.retries + 1} times: is the server up, and is this its address?")


def served(
    policy: Any,
    server: Server,
    rows: Sequence[Row],
    n: int,
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    limits: Sequence[int],
) -> list[Completion]:
    """What a server writes for a policy, with the policy's log-probs where the server's are of something else.

    Args:
        rows: prompts. seeds, limits: see :meth:`Server.complete`.

    Raises:
        ValueError: for prompts that show more than text. ServerError: see :meth:`Server.complete`.
    """
    if any(r.media for r in rows):
        raise ValueError("a server is sent token ids, and these prompts show more: sample them without a server")
    server.follow(policy)
    prompts = [r.prompt for r in rows]
    found = server.complete(prompts, n, sampling, seeds=seeds, limits=limits, eos_ids=policy.codec.eos_ids)
    if server.exact(sampling):
        return found
    ids = {"prompt_ids": [p for p in prompts for _ in range(n)], "output_ids": [c.ids for c in found]}
    mask = padded([[1.0] * len(c.ids) for c in found], policy.device)
    rollout = Rollout([Sample(None)] * len(found), mask, inputs=ids, how={"temperature": sampling.temperature})
    with torch.no_grad(), evaluating(policy.module):
        logps = policy.evaluate(rollout)["logps"].tolist()
    return [replace(c, logps=row[: len(c.ids)]) for c, row in zip(found, logps, strict=True)]


def _options(sampling: Sampling, eos_ids: frozenset[int]) -> dict[str, Any]:
    """The options of a request. All are said: what is not a server takes from the model's generation config."""
    return {
        "logprobs": 1,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "temperature": 0.0 if sampling.greedy else sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": list(sampling.stop),
        "stop_token_ids": sorted(eos_ids),
    }
