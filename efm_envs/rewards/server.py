"""A reward model behind HTTP: `efm serve-reward`, or in a program `with RewardServer(model) as server: …`.

It is on the standard library's server, so that the envs' base install can serve and ask. It has no passwords: it listens on this machine
only, unless told otherwise.
"""

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np

from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards.base import SEEN, RewardModel
from efm_envs.rewards.signal import checked_mean
from efm_envs.rewards.wire import WireError, pack, unpack
from efm_envs.task import Array, Goals

MODEL_PATH, STEPS_PATH = "/v1/model", "/v1/steps-to-go"
MESSAGE = "application/octet-stream"
GOAL_STATES = "goals/states"  # (B, G), beside the observations
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BYTES = 64 * 2**20
MAX_CONNECTIONS = 64

Log = Callable[[str], None]


class RewardServer:
    """Answers requests about one model, one at a time.

    Args:
        model: without a memory. Its fingerprint is taken now: a model that becomes another one needs another server.
        host: address to listen on.
        port: 0 is any free one.
        max_bytes: of a request's body; a longer one is refused before it is read.
        timeout_s: after which a silent connection is closed.
        max_connections: at the same time; others are told to come back.
        log: is told a line for each request.

    Attributes:
        url: where it is.

    Raises:
        RewardModelError: a model with a memory, or without a fingerprint.
        EFMError: a limit that is none.
        OSError: it cannot listen there.
    """

    def __init__(
        self,
        model: RewardModel,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = 30.0,
        max_connections: int = MAX_CONNECTIONS,
        log: Log | None = None,
    ) -> None:
        if model.has_memory:
            raise RewardModelError(
                f"reward model {model.id!r} remembers what it was shown, and a server does not know who asks. Serve the model inside it, "
                f'and wrap it where it is used: {{"id": "{model.id}", "model": {{"id": "http", "url": …}}}}.'
            )
        if not (timeout_s > 0 and max_bytes >= 1 and max_connections >= 1):
            raise EFMError(
                f"timeout_s is above 0, max_bytes and max_connections are at least 1; got {timeout_s}, {max_bytes} and {max_connections}."
            )
        if not 0 <= port < 2**16:
            raise EFMError(f"a port is a number from 0 (any free one) to {2**16 - 1}; got {port}.")
        handler = type("Handler", (_Handler,), {"timeout": timeout_s, "max_bytes": max_bytes})
        facts = {**description(model), "max_bytes": max_bytes}
        self._server = _Server((host, port), handler, model, facts, max_connections, log)
        self._thread: threading.Thread | None = None
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.server_port}"

    def serve_forever(self) -> None:
        """Answers until `close` is called, or Ctrl-C is pressed."""
        self._server.serve_forever(poll_interval=0.1)

    def start(self) -> "RewardServer":
        """Answers in a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, name="efm-reward-server", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stops listening, and ends the connections; more than once does no harm."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> "RewardServer":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def description(model: RewardModel) -> dict[str, Any]:
    """Returns what a client must know of a model, JSON-able."""
    return {
        "spec": model.spec,
        "fingerprint": model.fingerprint,
        "needs": None if model.needs is None else list(model.needs),
        "history": dict(model.history),
        "kind": model.kind,
        "task": model.task,
        "success_threshold": model.success_threshold,
        "success_k_of_n": list(model.success_k_of_n),
        "is_privileged": model.is_privileged,
    }


def question(model: RewardModel, message: bytes) -> tuple[dict[str, Array], Goals]:
    """Returns the observations and goals in a request's body.

    Raises:
        WireError: it is no question that this model can be asked.
    """
    facts, arrays = unpack(message)
    goals = _goals(facts, arrays)
    missing = [name for name in model.needs or () if name != SEEN and name not in arrays]
    if missing:
        raise WireError(
            f"reward model {model.id!r} needs {', '.join(map(repr, missing))}; got {', '.join(map(repr, arrays)) or 'nothing'}."
        )
    return arrays, goals


def answer(model: RewardModel, observations: Mapping[str, Array], goals: Goals) -> dict[str, Array]:
    """Returns what the model says, by name.

    Raises:
        RewardModelError: it is no steps-to-go.
    """
    said = model.steps_to_go(observations, goals)
    columns = {"mean": checked_mean(model, said, len(goals))}
    if said.edges is not None and said.probs is not None:
        columns |= {"edges": np.asarray(said.edges), "probs": np.asarray(said.probs)}
    return columns


def _goals(facts: dict[str, Any], arrays: dict[str, Array]) -> Goals:
    """Takes the goals out of a message; every array must have a row for each."""
    instructions, states = facts.get("instructions"), arrays.pop(GOAL_STATES, None)
    if not isinstance(instructions, list) or not instructions or not all(isinstance(sentence, str) for sentence in instructions):
        raise WireError('the header gives one sentence for each row under "instructions", at least one.')
    if states is None or states.ndim != 2 or states.dtype.kind != "f":
        raise WireError(f"{GOAL_STATES!r} is an array (B, G) of floats: the goals' own numbers; G may be 0.")
    for name, array in {**arrays, GOAL_STATES: states}.items():
        if array.ndim < 1 or len(array) != len(instructions):
            raise WireError(f"{name!r} has shape {array.shape}; there are {len(instructions)} instructions, so the first number is that.")
    return Goals.from_arrays(instructions, states)


class _Server(http.server.ThreadingHTTPServer):
    """Threads for connections, not too many, and one model."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[Any],
        model: RewardModel,
        facts: dict[str, Any],
        max_connections: int,
        log: Log | None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.model, self.facts, self.log, self.listens_to = model, facts, log, address[0]
        self.asking = threading.Lock()  # models need not bear two questions at once
        self._max_connections = max_connections
        self._open: set[Any] = set()  # the sockets of connections
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives a connection its thread, if there are not too many."""
        if len(self._open) >= self._max_connections:
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends all connections; their threads notice."""
        for request in tuple(self._open):
            with contextlib.suppress(OSError):  # it ended just now
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no fault of the server's."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "efm-envs", ""
    disable_nagle_algorithm = True
    max_bytes: ClassVar[int] = MAX_BYTES
    server: _Server

    def do_GET(self) -> None:
        """Describes the model."""
        if self._is_refused(MODEL_PATH):
            return
        self._send(HTTPStatus.OK, json.dumps(self.server.facts).encode(), "application/json")

    def do_POST(self) -> None:
        """Asks the model."""
        if self._is_refused(STEPS_PATH):
            return
        body = self._body()
        if body is None:
            return
        try:
            observations, goals = question(self.server.model, body)
        except WireError as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))
            return
        try:
            with self.server.asking:
                said = pack(answer(self.server.model, observations, goals), fingerprint=self.server.facts["fingerprint"])
        except Exception as error:  # the model's own; whoever asked is told
            words = str(error) if isinstance(error, EFMError) else f"the model raised {type(error).__name__}: {error}"
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, words)
        else:
            self._send(HTTPStatus.OK, said, MESSAGE)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers with JSON, and closes the connection: what follows in it may not be a request."""
        self.close_connection = True
        words = message or HTTPStatus(code).phrase
        self._send(code, json.dumps({"error": words}).encode(), "application/json")

    def log_message(self, format: str, *args: Any) -> None:
        """Tells the log."""
        if self.server.log is not None:
            self.server.log(f"{self.address_string()} {format % args}".encode("ascii", "backslashreplace").decode())

    def _is_refused(self, path: str) -> bool:
        host = _name_in(self.headers.get("Host", "")) if self.server.listens_to in LOOPBACK else None
        if host is not None and host not in LOOPBACK:  # a web page that calls this machine by a name of its own
            self.send_error(HTTPStatus.FORBIDDEN, f"this server answers to {', '.join(LOOPBACK)}; it was called {host!r}.")
        elif self.path not in (MODEL_PATH, STEPS_PATH):
            self.send_error(HTTPStatus.NOT_FOUND, f"there is GET {MODEL_PATH} and POST {STEPS_PATH}; got {self.path[:200]!r}.")
        elif self.path != path:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, f"there is GET {MODEL_PATH} and POST {STEPS_PATH}.")
        else:
            return False
        return True

    def _body(self) -> bytes | None:
        """Returns the request's body; None if it was refused, unread."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self.send_error(HTTPStatus.LENGTH_REQUIRED, "a request says how long it is: Content-Length, and no Transfer-Encoding.")
        elif len(length) > 18 or int(length) > self.max_bytes:
            self.send_error(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {self.max_bytes} bytes are taken; this request has {length[:40]}."
            )
        elif self.headers.get_content_type() != MESSAGE:
            self.send_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {MESSAGE}; got {self.headers.get_content_type()!r}.")
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            self.send_error(HTTPStatus.BAD_REQUEST, f"{length} bytes were announced; {len(body)} came.")
        return None

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _name_in(host: str) -> str | None:
    """Returns the name in a Host header without its port; all of it if it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return host
