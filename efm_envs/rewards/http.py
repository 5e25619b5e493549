"""A reward model that runs elsewhere: in another process, another environment, on a machine with a GPU."""

import contextlib
import http.client
import json
import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards.base import KINDS, RewardModel, StepsToGo
from efm_envs.rewards.server import GOAL_STATES, MESSAGE, MODEL_PATH, STEPS_PATH
from efm_envs.rewards.wire import WireError, pack, unpack
from efm_envs.task import Array, Goals

MAX_ANSWER_BYTES = 64 * 2**20
FIRST_PAUSE_S = 0.05  # before the first repetition; each further one waits twice as long


class HTTPRewardModel(RewardModel):
    """`http`: asks a server, such as `efm serve-reward`, once for each batch. What the model needs and speaks, the server says.

    Args:
        url: where it is, "http://127.0.0.1:8765".
        timeout_s: for an answer.
        retries: how often a question is repeated after a broken connection; the answer does not depend on it.

    Raises:
        RewardModelError: there is no such server, or what it says of its model cannot be.
    """

    id = "http"

    def __init__(self, url: str = "http://127.0.0.1:8765", timeout_s: float = 10.0, retries: int = 2) -> None:
        _check_url(url)
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < float("inf") or type(retries) is not int or retries < 0:
            raise EFMError(f"timeout_s is above 0 and retries a whole number from 0; got {timeout_s!r} and {retries!r}.")
        self.url, self.timeout_s, self.retries = url.rstrip("/"), float(timeout_s), retries
        self._connection: http.client.HTTPConnection | None = None
        self._process = os.getpid()
        self._declare(self._described())

    def steps_to_go(self, observations: Mapping[str, Array], goals: Goals) -> StepsToGo:
        """Asks the server about the whole batch."""
        body = self._ask("POST", STEPS_PATH, self._question(observations, goals))
        try:
            facts, arrays = unpack(body)
        except WireError as error:
            raise RewardModelError(f"the reward model at {self.url} answered with what is no answer: {error}") from error
        if (now := facts.get("fingerprint")) != self._fingerprint:
            raise RewardModelError(
                f"the reward model at {self.url} is another one now: its fingerprint was {self._fingerprint!r} and is {now!r}. "
                "Make the env anew."
            )
        if "mean" not in arrays:
            raise RewardModelError(f"the reward model at {self.url} answered without 'mean'; got {', '.join(arrays) or 'nothing'}.")
        return StepsToGo(arrays["mean"], arrays.get("edges"), arrays.get("probs"))

    @property
    def spec(self) -> dict[str, Any]:
        """Where the server is."""
        return {"id": self.id, "url": self.url, "timeout_s": self.timeout_s, "retries": self.retries}

    @property
    def fingerprint(self) -> str:
        """That of the server's model."""
        return self._fingerprint

    def close(self) -> None:
        """Closes the connection; the next question opens another."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}  # a copy opens its own

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self.close()

    def _question(self, observations: Mapping[str, Array], goals: Goals) -> bytes:
        try:
            question = pack({**observations, GOAL_STATES: goals.states}, instructions=goals.instructions)
        except WireError as error:
            raise RewardModelError(f"the reward model at {self.url} cannot be asked: {error}") from error
        if len(question) > self._max_bytes:
            raise RewardModelError(
                f"a question about {len(goals)} envs has {len(question)} bytes, and the server at {self.url} takes {self._max_bytes:.0f}: "
                "start it with a larger --max-mb, or ask about fewer envs."
            )
        return question

    def _declare(self, said: dict[str, Any]) -> None:
        try:
            self.needs = None if said["needs"] is None else tuple(map(str, said["needs"]))
            self.history = {str(name): int(k) for name, k in said["history"].items()}
            self.kind = said["kind"]
            self.task = said["task"]
            self.success_threshold = float(said["success_threshold"])
            k, n = said["success_k_of_n"]
            self.success_k_of_n = (int(k), int(n))
            self._fingerprint = str(said["fingerprint"])
            self._max_bytes = float(said.get("max_bytes", "inf"))
            if self.kind not in KINDS:
                raise ValueError(f"kind {self.kind!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RewardModelError(
                f"the reward model at {self.url} does not describe itself ({error!r}): is it `efm serve-reward`?"
            ) from error

    def _described(self) -> dict[str, Any]:
        answer = self._ask("GET", MODEL_PATH, None)
        try:
            said = json.loads(answer)
        except ValueError as error:
            raise RewardModelError(f"what answers at {self.url} is no reward model: {MODEL_PATH} is no JSON.") from error
        if not isinstance(said, dict):
            raise RewardModelError(f"what answers at {self.url} is no reward model: {MODEL_PATH} is no JSON object.")
        return said

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        """Returns the body of the answer; repeats the question where the connection breaks or the server is busy."""
        for repetition in range(self.retries + 1):
            if repetition:
                time.sleep(FIRST_PAUSE_S * 2 ** (repetition - 1))
            try:
                status, answer = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failure = f"{type(error).__name__}: {error}"
                continue
            if status == http.client.OK:
                return answer
            self.close()
            if status != http.client.SERVICE_UNAVAILABLE:
                raise RewardModelError(f"the reward model at {self.url} refused ({status}): {_error_in(answer)}")
            failure = "it is busy (503)"
        raise RewardModelError(
            f"the reward model at {self.url} did not answer within {self.timeout_s:g} s, {self.retries + 1} times asked ({failure}). "
            "Is it running? `efm serve-reward` starts one."
        )

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is None or self._process != os.getpid():
            self._connection, self._process = self._connect(), os.getpid()
        headers = {} if body is None else {"Content-Type": MESSAGE}
        self._connection.request(method, (urlsplit(self.url).path or "") + path, body, headers)
        response = self._connection.getresponse()
        answer = response.read(MAX_ANSWER_BYTES + 1)
        if len(answer) > MAX_ANSWER_BYTES:
            self.close()
            raise RewardModelError(f"the reward model at {self.url} answered with more than {MAX_ANSWER_BYTES} bytes.")
        if response.length:  # what was announced and did not come
            raise http.client.IncompleteRead(answer, response.length)
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind: Any = self._kinds[parts.scheme]
        made: http.client.HTTPConnection = kind(parts.hostname, parts.port, timeout=self.timeout_s)
        return made

    _kinds: ClassVar[dict[str, Any]] = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


def _check_url(url: Any) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):  # a port that is no number, or no string at all
        fits = False
    if not fits:
        raise EFMError(f'url is like "http://127.0.0.1:8765"; got {url!r}.')


def _error_in(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return repr(answer[:200])
