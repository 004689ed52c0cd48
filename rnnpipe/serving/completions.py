"""OpenAI's completions: what a request asks for, and what it gets, whole or piece by piece."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rnnpipe.errors import UsageError, did_you_mean
from rnnpipe.generation.engine import Drawn, Finished
from rnnpipe.generation.prompts import Generated
from rnnpipe.generation.tokens import Tokens
from rnnpipe.pipeline.requests import Options

MOST_LOGPROBS = 20
_OPTIONS = ("max_tokens", "temperature", "top_p", "stop")  # under the names that they have in rnnpipe
_MORE = ("top_k", "samplers", "sentence", "allow_unknown")  # which OpenAI does not have
_ITSELF = ("model", "prompt", "n", "stream", "stream_options", "logprobs", "echo", "seed", "user")
# What this server does not do, and the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None,),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "suffix": (None, ""),
}
# Why a text ended, in OpenAI's words.
REASONS = {"document": "stop", "stop": "stop", "none allowed": "stop", "length": "length"}


@dataclass(frozen=True)
class Wanted:
    """What a request asks for: `copies` texts behind each prompt. usage: the counts of tokens come as a last piece."""

    prompts: tuple[str, ...]
    copies: int
    options: Options
    seed: int
    logprobs: int | None
    echo: bool
    stream: bool
    usage: bool


def parse_wanted(body: Mapping[str, Any]) -> Wanted:
    """Read the body of a request to /v1/completions; raise UsageError for what is wrong or not done here."""
    accepted = [*_ITSELF, *_OPTIONS, *_MORE, *_NEUTRAL]
    for key, value in body.items():
        if key not in accepted:
            raise UsageError(f"unknown parameter '{key}'.{did_you_mean(key, accepted)}")
        if key in _NEUTRAL and value not in _NEUTRAL[key]:
            raise UsageError(f"{key}={value!r}: this server does not do that; leave it out.")
    given = {key: value for key, value in body.items() if value is not None}
    options = Options(max_tokens=16).with_own(
        {key: given[key] for key in (*_OPTIONS, *_MORE) if key in given}, "the request"
    )
    copies = _whole(given, "n", 1, least=1)
    logprobs = _whole(given, "logprobs", 0, least=0, most=MOST_LOGPROBS) if "logprobs" in given else None
    streamed = given.get("stream_options", {})
    if not isinstance(streamed, dict) or not set(streamed) <= {"include_usage", "include_obfuscation"}:
        raise UsageError("stream_options takes an object with include_usage.")
    echo, stream = (_truth(given, key) for key in ("echo", "stream"))
    if echo and logprobs is not None:
        raise UsageError("echo with logprobs: a prompt's own log-probabilities come from /score.")
    seed = _whole(given, "seed", 0, least=0, most=2**63 - 1) if "seed" in given else secrets.randbits(63)
    return Wanted(_prompts(given), copies, options, seed, logprobs, echo, stream, bool(streamed.get("include_usage")))


def _prompts(given: Mapping[str, Any]) -> tuple[str, ...]:
    prompt = given.get("prompt", "")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(each, str) for each in prompts):
        raise UsageError("prompt takes a text or a list of texts; ids of tokens are not read.")
    return tuple(prompts)


def _whole(given: Mapping[str, Any], key: str, default: int, *, least: int, most: int | None = None) -> int:
    value = given.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        upper = "or more" if most is None else f"to {most}"
        raise UsageError(f"{key}={value!r} is not accepted; it takes a whole number, {least} {upper}.")
    return value


def _truth(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f"{key}={value!r} is not accepted; it takes true or false.")
    return value


class Choice:
    """One text of an answer, as it comes.

    lead: what stands before its first token, such as the blank that sets it off from its prompt.
    """

    def __init__(self, wanted: Wanted, index: int, lead: str, tokens: Tokens) -> None:
        self.index = index
        self._tokens = tokens
        self._lead = lead
        self._told = wanted.logprobs
        self._held_back = max(map(len, wanted.options.stop), default=1) - 1  # may be a stop string's beginning
        self._drawn: list[Drawn] = []
        self._scored = 0
        self._sent = 0
        self._prompt = wanted.prompts[index // wanted.copies] if wanted.echo else ""

    def add(self, event: Drawn) -> None:
        """Note a token."""
        if event.token != self._tokens.boundary:
            self._drawn.append(event)

    def piece(self) -> dict[str, Any] | None:
        """Return what is new and certain, None if that is nothing."""
        text = self._whole(self._tokens.spell(each.token for each in self._drawn))
        certain = text[: len(text) - self._held_back].rstrip("\ufffd")  # which may be half a character
        if len(certain) <= self._sent and self._scored == len(self._drawn):
            return None
        return self._piece(certain, None)

    def last_piece(self, made: Generated) -> dict[str, Any]:
        """Return what is left, or all if nothing was asked for before, and why the text ended.

        Beyond OpenAI's: the reason as `generate` tells it, and the words of the prompt that are unknown.
        """
        piece = self._piece(self._whole(made.text), REASONS[made.finish])
        return {**piece, "finish": made.finish, "unknown": list(made.unknown)}

    def _whole(self, text: str) -> str:
        return self._prompt + (self._lead + text if text else "")

    def _piece(self, text: str, reason: str | None) -> dict[str, Any]:
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        logprobs = None if self._told is None else self._logprobs(self._told)
        return {"text": new, "index": self.index, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, count: int) -> dict[str, Any]:
        """Return the log-probabilities of the tokens that have not been told yet."""
        new = self._drawn[self._scored :]
        ids = [each.token for each in self._drawn]
        offsets = [len(self._lead + self._tokens.spell(ids[:place])) for place in range(self._scored, len(ids))]
        self._scored = len(ids)
        name = self._tokens.texts
        return {
            "tokens": [name[each.token] for each in new],
            "token_logprobs": [each.log_probability for each in new],
            "top_logprobs": [{name[k]: score for k, score in each.likely} for each in new] if count else None,
            "text_offset": offsets,
        }


def usage(ends: Iterable[Finished], made: Iterable[Generated], copies: int) -> dict[str, int]:
    """Return the tokens of prompts, each counted once, and of texts."""
    prompt = sum(len(end.job.prompt) for end in ends) // copies
    drawn = sum(len(each.tokens) for each in made)
    return {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn}
