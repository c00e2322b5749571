"""How one provider's models go on from the beginning of an answer: asked of it, once each. Knows no conversations."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llmchat.lean_openai import openai
from llmchat.provider_errors import provider_error

QUESTION_SECONDS = 5.0
"""For the model server to say how it can be given the beginning of an answer."""
PATIENCE_SECONDS = 0.5
"""How long an answer waits for that."""
ASK_AGAIN_SECONDS = 30.0
"""After a question that was not answered."""
HOW_WORDS = (
    ("flag", re.compile(r"cannot set both .*(add_generation_prompt|continue_final_message)", re.IGNORECASE)),
    ("last", re.compile(r"cannot have 2 or more assistant messages at the end", re.IGNORECASE)),
)
"""How it can, and how a server that can refuses the question for it: vLLM and llama.cpp, older llama.cpp."""
QUESTIONS: dict[str, dict[str, Any]] = {
    "flag": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "H"}],
        "continue_final_message": True,
        "add_generation_prompt": True,
    },
    "last": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "H"},
            {"role": "assistant", "content": "i"},
        ],
    },
}

log = logging.getLogger(__name__)


class Continuation:
    """`how` is the way that is set: "flag", "last", "prefix" or "never"; "auto" asks. Models are by their server's names.

    `ask` has the server asked, and raises what the SDK does; `server` is what the log calls it.
    """

    def __init__(self, how: str, ask: Callable[[Mapping[str, Any]], Awaitable[object]], server: str) -> None:
        self._how = how
        self._ask = ask
        self._server = server
        # model -> how it goes on, or None: not said
        self._questions: dict[str, asyncio.Task[str | None]] = {}
        self._unsaid: dict[str, float] = {}  # model -> when it was asked in vain, by the loop's clock

    async def close(self) -> None:
        """Ask no more."""
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    def learn(self, model: str) -> None:
        """Have the server asked how a model goes on, where that is not known."""
        question = self._questions.get(model)
        if self._how != "auto" or (question is not None and not self._was_in_vain(model, question)):
            return
        self._questions[model] = asyncio.create_task(self._question(model), name=f"question {model}")

    async def how(self, model: str) -> str:
        """Tell how a model goes on; "never" while its server does not say."""
        if self._how != "auto":
            return self._how
        self.learn(model)
        done, _ = await asyncio.wait([self._questions[model]], timeout=PATIENCE_SECONDS)
        return next((question.result() or "never" for question in done), "never")

    def _was_in_vain(self, model: str, question: asyncio.Task[str | None]) -> bool:
        """Whether nothing was said to a question, so long ago that it may be asked again."""
        in_vain = question.done() and (question.cancelled() or question.result() is None)
        return in_vain and asyncio.get_running_loop().time() - self._unsaid.get(model, 0) > ASK_AGAIN_SECONDS

    async def _question(self, model: str) -> str | None:
        """Ask how a model goes on; None where its server does not say."""
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                return await self._ask_how(model)
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            kind = provider_error(error).kind
            log.info("%s did not say whether %s goes on from a beginning (%s)", self._server, model, kind)
            self._unsaid[model] = asyncio.get_running_loop().time()
            return None

    async def _ask_how(self, model: str) -> str:
        for how, words in HOW_WORDS:
            try:
                await self._ask({"model": model, "max_tokens": 1, **QUESTIONS[how]})
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if words.search(error.message):
                    return how
        return "never"


def given(kept: str, how: str) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Say a beginning to a model server: the message, and the fields beside the messages."""
    message: dict[str, Any] = {"role": "assistant", "content": kept}
    if how == "prefix":
        return [message | {"prefix": True}], {}
    if how == "flag":
        return [message], {"continue_final_message": True, "add_generation_prompt": False}
    return [message], {}
