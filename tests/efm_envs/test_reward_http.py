"""A reward model behind HTTP says what it says here, and its server bears whatever comes."""

import ast
import copy
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efm_envs.errors import EFMError, RewardModelError
from efm_envs.rewards import FunctionRewardModel, RewardModel, StepsToGo, make_reward_model
from efm_envs.rewards.server import GOAL_STATES, MESSAGE, RewardServer
from efm_envs.rewards.wire import DTYPES, MAGIC, WireError, pack, unpack
from efm_envs.task import Goal, Goals
from efm_envs.testing import check_reward_model
from tests.efm_envs.fakes import POINT_MASS, Reader, first_value

ROOT = Path(__file__).resolve().parents[2]
BAD_URLS = ("localhost:1", "ftp://x", "http://x:99999", "http://x:port", "http://[::1", 8765)
STEPS = b"POST /v1/steps-to-go HTTP/1.1\r\nHost: localhost\r\n"
X = FunctionRewardModel(lambda observations: observations["x"][:, 0], needs=("x",))


@pytest.fixture
def server() -> Iterator[RewardServer]:
    with RewardServer(X, timeout_s=5.0) as running:
        yield running


def client(server: RewardServer, **options: Any) -> RewardModel:
    return make_reward_model({"id": "http", "url": server.url, **options})


def question(*values: float) -> bytes:
    return pack({"x": np.array(values)[:, None], GOAL_STATES: np.zeros((len(values), 0))}, instructions=["go"] * len(values))


def post(body: bytes, kind: str = MESSAGE) -> bytes:
    return STEPS + f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def port_of(server: RewardServer) -> int:
    return int(server.url.rpartition(":")[2])


def exchange(server: RewardServer, data: bytes, *, end: bool = True) -> tuple[int, bytes]:
    """Sends bytes and returns status and body of the first answer; 0 where there is none."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=10) as connection:
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
                head, found, body = answer.partition(b"\r\n\r\n")
                length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                if found and length and len(body) >= int(length[0].split(b":")[1]):
                    break
        except ConnectionError:  # it closed the door before all was said
            return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


def still_answers(server: RewardServer) -> bool:
    status, body = exchange(server, post(question(3.0, 4.0)), end=False)
    return status == 200 and unpack(body)[1]["mean"].tolist() == [3.0, 4.0]


# -- the same answers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["oracle", "sparse", {"id": "noisy", "std": 2.0, "distribution": True}, first_value, Reader()])
def test_through_http_a_model_says_the_same_to_the_last_bit(model: Any) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 3, 2)).astype(np.float32)
    with RewardServer(make_reward_model(model)) as server:
        runs = []
        for reward_model in (model, {"id": "http", "url": server.url}):
            envs = gym.make_vec(POINT_MASS, 3, reward_model=reward_model, terminate_on="never")
            infos = [envs.reset(seed=1)[1], *(envs.step(action)[4] for action in actions)]
            runs.append([info["steps_to_go"].tolist() for info in infos])
            prediction = envs.unwrapped.signal.prediction
            runs[-1].append(None if prediction.probs is None else prediction.probs.tolist())
            envs.close()
    assert runs[0] == runs[1]


def test_it_keeps_the_laws_of_reward_models() -> None:
    with RewardServer(make_reward_model("oracle")) as server:
        check_reward_model({"id": "http", "url": server.url}, POINT_MASS)


def test_one_step_is_one_question(server: RewardServer) -> None:
    asked: list[str] = []
    with RewardServer(make_reward_model("oracle"), log=asked.append) as counted:
        envs = gym.make_vec(POINT_MASS, 5, reward_model={"id": "http", "url": counted.url})
        envs.reset(seed=0)
        asked.clear()
        envs.step(np.zeros((5, 2), np.float32))
        envs.close()
    assert len(asked) == 1 and "POST /v1/steps-to-go" in asked[0]


def test_a_client_takes_over_what_the_server_says_of_its_model() -> None:
    class Declares(Reader):
        task, success_threshold, success_k_of_n, kind = "point_mass", 3.0, (2, 3), "progress"

    with RewardServer(Declares()) as server:
        model = client(server)
    assert (model.needs, model.history, model.task) == (Reader.needs, Reader.history, "point_mass")
    assert (model.success_threshold, model.success_k_of_n, model.kind) == (3.0, (2, 3), "progress")
    assert model.fingerprint == Declares().fingerprint and model.spec["url"] == server.url


def test_a_privileged_model_is_privileged_from_afar() -> None:
    with RewardServer(make_reward_model("oracle")) as server:
        assert client(server).is_privileged


def test_a_copy_has_a_connection_of_its_own(server: RewardServer) -> None:
    model = client(server)
    other = copy.deepcopy(model)
    goals = Goals([Goal("go")])
    for asked in (model, other, model):
        assert asked.steps_to_go({"x": np.array([[2.0]])}, goals).mean.tolist() == [2.0]


def test_a_model_with_a_memory_is_not_served() -> None:
    with pytest.raises(RewardModelError, match=r"'delayed' remembers .*wrap it where it is used"):
        RewardServer(make_reward_model("delayed"))


def test_what_remembers_is_wrapped_around_the_client() -> None:
    with RewardServer(make_reward_model("oracle")) as server:
        check_reward_model({"id": "delayed", "model": {"id": "http", "url": server.url}, "delay": 2}, POINT_MASS)


# -- when something is wrong ---------------------------------------------------------------------------------------------------------


def test_a_model_that_raises_is_told_and_the_server_goes_on(server: RewardServer) -> None:
    model = client(server)
    with pytest.raises(RewardModelError, match=r"refused \(400\): reward model 'function' needs 'x'; got 'y'"):
        model.steps_to_go({"y": np.zeros((1, 1))}, Goals([Goal("go")]))
    with pytest.raises(RewardModelError, match=r"refused \(500\): .*returned nan steps-to-go for env 1"):
        model.steps_to_go({"x": np.array([[1.0], [np.nan]])}, Goals([Goal("go")] * 2))
    with pytest.raises(RewardModelError, match=r"refused \(500\): the model raised IndexError"):
        model.steps_to_go({"x": np.zeros((1, 0))}, Goals([Goal("go")]))
    assert still_answers(server)


def test_nobody_there_is_an_error_that_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RewardModelError, match=rf"{url} did not answer .* 2 times asked .*`efm serve-reward` starts one"):
        make_reward_model({"id": "http", "url": url, "retries": 1})


def test_a_server_that_is_none_is_named() -> None:
    for said in (b"no JSON", b"[]", b"{}"):
        with scripted(answer_of(said)) as url, pytest.raises(RewardModelError, match=r"is no reward model|does not describe itself"):
            make_reward_model({"id": "http", "url": url})


def test_half_an_answer_is_a_broken_connection() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
    with scripted(half, hang_up=True) as url, pytest.raises(RewardModelError, match=r"1 times asked \(IncompleteRead"):
        make_reward_model({"id": "http", "url": url, "retries": 0})


def test_a_server_that_hangs_is_given_up() -> None:
    with scripted(None) as url, pytest.raises(RewardModelError, match=r"did not answer within 0\.1 s, 1 times asked"):
        make_reward_model({"id": "http", "url": url, "timeout_s": 0.1, "retries": 0})


def test_a_broken_connection_is_tried_again(server: RewardServer) -> None:
    model = client(server)
    assert model.steps_to_go({"x": np.array([[2.0]])}, Goals([Goal("go")])).mean.tolist() == [2.0]
    model._connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
    assert model.steps_to_go({"x": np.array([[3.0]])}, Goals([Goal("go")])).mean.tolist() == [3.0]


def test_another_model_at_the_same_address_is_an_error() -> None:
    goals = Goals([Goal("go")])
    with RewardServer(make_reward_model({"id": "constant", "value": 1})) as server:
        model = client(server)
        assert model.steps_to_go({}, goals).mean.tolist() == [1.0]
    with (
        RewardServer(make_reward_model({"id": "constant", "value": 2}), port=port_of(server)),
        pytest.raises(RewardModelError, match=r"is another one now: its fingerprint was .*Make the env anew"),
    ):
        model.steps_to_go({}, goals)


def test_a_closed_server_answers_nobody() -> None:
    with RewardServer(X) as server:
        model = client(server, retries=0)  # its connection is still open when the server closes
    with pytest.raises(RewardModelError, match="did not answer"):
        model.steps_to_go({"x": np.zeros((1, 1))}, Goals([Goal("go")]))


def test_a_batch_that_is_too_large_is_an_error_that_says_what_to_do() -> None:
    with RewardServer(X, max_bytes=1000) as server, pytest.raises(RewardModelError, match=r"about 500 envs has .* takes 1000: .*--max-mb"):
        client(server).steps_to_go({"x": np.zeros((500, 1))}, Goals([Goal("go")] * 500))


def test_what_cannot_be_sent_is_an_error_that_names_it(server: RewardServer) -> None:
    with pytest.raises(RewardModelError, match=r"cannot be asked: 'x' has dtype <U1"):
        client(server).steps_to_go({"x": np.array([["a"]])}, Goals([Goal("go")]))


def test_a_model_may_answer_with_lists_and_write_to_what_it_is_given() -> None:
    class Careless(RewardModel):
        needs = ("x",)

        def steps_to_go(self, observations: Mapping[str, Any], goals: Goals) -> StepsToGo:
            x = observations["x"]
            x += 1.0
            return StepsToGo(x[:, 0].tolist(), [0, 1, 2], [[0.25, 0.75]] * len(goals))  # type: ignore[arg-type]

    with RewardServer(Careless()) as server:
        said = client(server).steps_to_go({"x": np.array([[2.0]])}, Goals([Goal("go")]))
    assert said.mean.tolist() == [3.0] and said.edges is not None and said.probs is not None
    assert said.edges.tolist() == [0, 1, 2] and said.probs.tolist() == [[0.25, 0.75]]


def test_a_model_without_a_fingerprint_is_refused_when_the_server_starts() -> None:
    lock = threading.Lock()
    with pytest.raises(RewardModelError, match="Pass version="):
        RewardServer(FunctionRewardModel(lambda observations: (lock, observations["x"][:, 0])[1], needs=("x",)))


def test_the_fingerprint_is_taken_once_and_not_at_each_step() -> None:
    class Large(RewardModel):
        needs, hashed = (), 0

        @property
        def fingerprint(self) -> str:
            self.hashed += 1
            return "large"

        def steps_to_go(self, observations: Mapping[str, Any], goals: Goals) -> StepsToGo:
            return StepsToGo(np.ones(len(goals)))

    large = Large()
    with RewardServer(large) as server:
        model = client(server)
        for _ in range(3):
            model.steps_to_go({}, Goals([Goal("go")]))
    assert large.hashed == 1


@pytest.mark.parametrize("limits", [{"timeout_s": 0}, {"max_bytes": 0}, {"max_connections": 0}])
def test_limits_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(EFMError, match=r"timeout_s is above 0"):
        RewardServer(X, **limits)


@pytest.mark.parametrize("options", [*({"url": url} for url in BAD_URLS), {"timeout_s": 0}, {"timeout_s": "3"}, {"retries": -1}])
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(EFMError, match=r"url is like|timeout_s is above 0"):
        make_reward_model({"id": "http", **options})


# -- what the server refuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "there is GET /v1/model"),
        (b"GET /v1/steps-to-go HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "there is GET /v1/model"),
        (b"PUT /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n", 501, "Unsupported method"),
        (b"GET /v1/model HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "it was called 'evil.example'"),
        (b"GET /v1/model HTTP/1.1\r\nHost: [::1\r\n\r\n", 403, "it was called '[::1'"),
        (STEPS + b"\r\n", 411, "Content-Length"),
        (STEPS + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 411, "Content-Length"),
        (STEPS + b"Content-Length: -3\r\n\r\n", 411, "Content-Length"),
        (post(b"abc", "text/plain"), 415, "Content-Type is application/octet-stream"),
        (post(b"abc"), 400, "a message begins with"),
        (post(question(1.0))[:-3], 400, "bytes were announced"),
    ],
)
def test_what_is_no_question_is_refused_with_the_reason(server: RewardServer, request_bytes: bytes, status: int, words: str) -> None:
    found, body = exchange(server, request_bytes)
    assert (found, words in json.loads(body)["error"]) == (status, True), body
    assert still_answers(server)


def test_an_oversized_request_is_refused_before_it_is_read() -> None:
    with RewardServer(X, max_bytes=1000) as server:
        for length in (1001, 10**12, 10**40):  # no byte of the body is ever sent: the answer comes all the same
            status, body = exchange(server, STEPS + f"Content-Type: {MESSAGE}\r\nContent-Length: {length}\r\n\r\n".encode(), end=False)
            assert status == 413 and "at most 1000 bytes are taken" in json.loads(body)["error"]
        assert still_answers(server)


def test_a_silent_connection_is_closed() -> None:
    with RewardServer(X, timeout_s=0.1) as server:
        assert exchange(server, STEPS, end=False) == (0, b"")
        assert still_answers(server)


def test_too_many_connections_are_told_to_come_back() -> None:
    with RewardServer(X, max_connections=1, timeout_s=5) as server:
        with socket.create_connection(("127.0.0.1", port_of(server))) as first:
            first.sendall(STEPS)
            assert _until(lambda: exchange(server, b"", end=False)[0] == 503)
        assert _until(lambda: still_answers(server))


def _until(is_so: Any) -> bool:
    deadline = time.monotonic() + 5
    while not is_so():
        if time.monotonic() > deadline:
            return False
    return True


def test_ten_thousand_malformed_requests_leave_it_up(server: RewardServer) -> None:
    rng = random.Random(0)
    threads = threading.active_count()
    answered = 0
    for number in range(10_000):
        status, _ = exchange(server, malformed(rng))
        assert status not in (200, 500), number
        answered += status >= 400
    assert answered > 8_500  # to the others it closed the connection
    assert still_answers(server)
    assert _until(lambda: threading.active_count() <= threads + 1)


def malformed(rng: random.Random) -> bytes:
    """Returns a request that is wrong somewhere, from noise to a question with one thing off."""
    good = question(*(rng.random() for _ in range(rng.randint(1, 3))))
    header = json.loads(good[8 : 8 + struct.unpack("<I", good[4:8])[0]])

    def with_header(text: bytes, rest: bytes = b"") -> bytes:
        return post(MAGIC + struct.pack("<I", len(text)) + text + rest)

    def changed(**facts: Any) -> bytes:
        return with_header(json.dumps({**header, **facts}).encode(), rng.randbytes(rng.randint(0, 40)))

    def array(**facts: Any) -> bytes:
        return changed(arrays=[{"name": "x", "dtype": "<f8", "shape": [1, 1], **facts}])

    kinds = [
        lambda: b"\x16\x03" + rng.randbytes(rng.randint(1, 200)) + b"\r\n\r\n",
        lambda: (
            rng.choice([b"GET", b"POST", b"HEAD", b"BREW"])
            + b" "
            + rng.randbytes(20).hex().encode()
            + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ),
        lambda: b"GET /v1/model HTTP/9.9\r\n\r\n",
        lambda: b"GET /v1/model HTTP/1.1\r\nHost: " + rng.choice([b"[::1", b"a:b:c", b"evil.example", b"\xff"]) + b"\r\n\r\n",
        lambda: b"POST " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        lambda: STEPS + b"X: y\r\n" * 200 + b"\r\n",
        lambda: STEPS + f"Content-Length: {rng.choice(['', 'x', '-1', '1e9', '9' * 30, '²'])}\r\n\r\n".encode(),
        lambda: post(rng.randbytes(rng.randint(0, 300))),
        lambda: post(good[: rng.randint(0, len(good) - 1)]),
        lambda: post(good + rng.randbytes(rng.randint(1, 9))),
        lambda: post(MAGIC + struct.pack("<I", rng.randint(0, 2**32 - 1)) + rng.randbytes(rng.randint(0, 30))),
        lambda: with_header(b"[" * 100_000),
        lambda: with_header(rng.choice([b"null", b"[]", b"{}", b'"x"', b"{]", b"\xff", b'{"arrays": 3}', b"NaN"])),
        lambda: array(dtype=rng.choice(["O", "<f9", "<U4", "|V8", None, 3, "<c16", "object", "<M8[s]"])),
        lambda: array(shape=rng.choice([[-1], [2**62, 2**62], [1] * 50, "x", None, [1.5], [True], [10**30, 0], [3, 3], [10**4000] * 8])),
        lambda: array(name=rng.choice([None, 3, [], {}])),
        lambda: changed(arrays=header["arrays"] * 2),
        lambda: changed(instructions=rng.choice([None, [], "go", [1], {"a": 1}])),
        lambda: post(pack({"x": np.zeros((2, 1)), GOAL_STATES: np.zeros((3, 0))}, instructions=["go"] * 3)),
        lambda: post(pack({"x": np.zeros((1, 1))}, instructions=["go"])),
        lambda: post(pack({"y": np.zeros((1, 1)), GOAL_STATES: np.zeros((1, 0))}, instructions=["go"])),
    ]
    return rng.choice(kinds)()


# -- the format ----------------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4), st.integers(0, 2**32 - 1))
def test_an_array_comes_out_as_it_went_in(dtype: str, shape: list[int], seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    facts, arrays = unpack(pack({"a": data, "b": data.T}, words="naïve"))
    assert facts == {"words": "naïve"} and arrays["a"].dtype == data.dtype
    np.testing.assert_array_equal(arrays["a"], data)
    np.testing.assert_array_equal(arrays["b"], data.T)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_message_are_an_error_and_nothing_else(noise: bytes) -> None:
    for message in (noise, MAGIC + noise, MAGIC + struct.pack("<I", len(noise)) + noise):
        with pytest.raises(WireError):
            unpack(message)


def test_big_endian_arrays_arrive_as_numbers_and_objects_are_not_sent() -> None:
    assert unpack(pack({"a": np.array([1, 2], ">i4")}))[1]["a"].tolist() == [1, 2]
    with pytest.raises(WireError, match="dtype object"):
        pack({"a": np.array([None])})


def test_nothing_in_the_packages_can_unpickle() -> None:
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    for folder in ("efm_envs", "agents", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.partition(".")[0] for name in names} & forbidden, path
                if isinstance(node, ast.Call):
                    words = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                    assert not words.get("allow_pickle"), path
                    called = ast.unparse(node.func)
                    assert called != "torch.load", path
                    assert not called.endswith(("np.load", "numpy.load")) or "allow_pickle" in words, path


# -- servers that misbehave ----------------------------------------------------------------------------------------------------------


def answer_of(body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class scripted:  # noqa: N801 (used like a function)
    """A server that answers every connection with the same bytes, or with silence, and then hangs up or not."""

    def __init__(self, answer: bytes | None, *, hang_up: bool = False) -> None:
        self._answer, self._hang_up, self._open = answer, hang_up, []  # type: ignore[var-annotated]

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            if self._answer is not None:
                connection.recv(65536)
                connection.sendall(self._answer)
            if self._hang_up:
                connection.close()


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(EFMError, match=r"a port is a number from 0 .* to 65535; got 99999"):
        RewardServer(X, port=99999)
