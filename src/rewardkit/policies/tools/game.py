"""The game of a question with tools: calls are answered until the policy says something without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewardkit.policies.language.tool_calls import calls_of
from rewardkit.registry import entry
from rewardkit.types import Sample

Tool = Callable[..., str]
Message = dict[str, Any]


@entry("policies:tool_game", tags=("tool", "environment"))
class ToolGame:
    """A :class:`rewardkit.protocols.TextEnv` with tools. Hand ``partial(ToolGame, tools)`` to ``policy.sample(env=)``.

    A message that calls no tool is the answer and ends the game. A call of a tool that there is not, with the wrong
    arguments, or that fails, is answered with what is wrong: that is the policy's mistake, and it may learn from it.

    Args:
        tools: functions with type hints and a docstring whose ``Args:`` describe each argument, or bound methods; they
            take keyword arguments and return text. instructions: a system message to begin with.

    >>> from rewardkit.policies.language.tool_calls import assistant, hermes
    >>> from rewardkit.policies.tools.calculator import calculate
    >>> game = ToolGame([calculate])
    >>> game.reset(Sample("What is 6 * 7?"))[0]["tools"][0]["function"]["name"]
    'calculate'
    >>> call = '<tool_call>{"name": "calculate", "arguments": {"expression": "6 * 7"}}</tool_call>'
    >>> game.step(assistant(call, hermes))
    ([{'role': 'tool', 'tool_call_id': 'call_0', 'name': 'calculate', 'content': '42'}], False)
    >>> game.step(assistant("42", hermes)), game.state()["answer"]
    (([], True), '42')
    """

    def __init__(self, tools: Sequence[Tool], *, instructions: str | None = None) -> None:
        self.tools: dict[str, Tool] = {getattr(t, "__name__", ""): t for t in tools}
        if len(self.tools) < len(tools) or "" in self.tools:
            raise ValueError("tools are functions with different names")
        self.schemas = [_schema(t) for t in tools]
        self.instructions = instructions
        self.calls: tuple[dict[str, Any], ...] = ()
        self.answer: str | None = None

    def reset(self, sample: Sample) -> list[Message]:
        """The prompt, after the instructions, with the tools on its first message."""
        self.calls, self.answer = (), None
        given = sample.prompt
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
        if self.instructions is not None:
            messages.insert(0, {"role": "system", "content": self.instructions})
        return [{**messages[0], "tools": self.schemas}, *messages[1:]]

    def step(self, message: Message) -> tuple[list[Message], bool]:
        """What the tools say, in the order of the calls."""
        asked = calls_of(message)
        if not asked:
            self.answer = message["content"]
            return [], True
        said: list[Message] = []
        for number, name, arguments in asked:
            result = self._run(name, arguments)
            self.calls = (*self.calls, {"name": name, "arguments": arguments, "result": result})
            said.append({"role": "tool", "tool_call_id": number, "name": name, "content": result})
        return said, False

    def _run(self, name: str, arguments: Mapping[str, Any]) -> str:
        if name not in self.tools:
            return f"Error: there is no tool {name!r}; there are {', '.join(self.tools)}."
        try:
            return str(self.tools[name](**arguments))
        except Exception as error:  # whatever a tool makes of a model's arguments is an answer
            return f"Error: {error}"

    def snapshot(self) -> Callable[[], None]:
        """Keep what was called and answered."""
        kept = self.calls, self.answer

        def back() -> None:
            self.calls, self.answer = kept

        return back

    def state(self) -> Mapping[str, Any]:
        """``calls``: each with name, arguments and result; ``answer``: the final message, ``None`` before it."""
        return {"calls": list(self.calls), "answer": self.answer}


def _schema(tool: Tool) -> dict[str, Any]:
    """The JSON schema of a tool, from its type hints and docstring (examples in it are left out)."""
    from transformers.utils import get_json_schema

    function = get_json_schema(tool)["function"]
    fields = function["parameters"]["properties"].values()
    for one in (function, *fields):
        one["description"] = one["description"].partition(">>>")[0].partition("\n\n")[0].strip()
    return {"type": "function", "function": {k: v for k, v in function.items() if k != "return"}}
