"""The server: OpenAI's own client gets what `generate` gives, nobody gets more than the limits, nothing is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browser import open_page
from cli import KITCHEN, fail, settings, succeed

from rnnpipe.pipeline.reading import open_for_reading

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
openai = pytest.importorskip("openai", reason="the official client is not installed")
serving = pytest.importorskip("rnnpipe.serving.run")
Limits = pytest.importorskip("rnnpipe.serving.limits").Limits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "run"
    succeed("train", KITCHEN, "--level", "char", "-o", folder, *settings(training__max_steps=60))
    return folder


@contextlib.contextmanager
def served(
    run: Path, *, key: str | None = None, rows: int = 64, host: str = "127.0.0.1", **limits: Any
) -> Iterator[Any]:
    """Serve a run from a thread of this process."""
    server = serving.ModelServer(
        open_for_reading(run, device="cpu"), run.name, host, 0, key=key, rows=rows, limits=Limits(**limits)
    )
    ends: list[Callable[[], None]] = []
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda end: (ends.append(end), ready.set()),))
    thread.start()
    assert ready.wait(120)
    try:
        yield server
    finally:
        ends[0]()
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Any]:
    with served(run) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def ask(server: Any, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Ask with http.client; return the status and the answer, as JSON if it is such."""
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text) if "json" in (response.headers["content-type"] or "") else text


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def figure(server: Any, name: str, **headers: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", ask(server, "/metrics", **headers)[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROMPTS = ["", "The ki", "A pot of soup and", "x"]
# A text that does not end by chance at its first token.
LASTING = {"samplers": ["forbid:tokens=<doc>"]}
HOW: dict[str, Any] = {"max_tokens": 40, "temperature": 0.9, "top_p": 0.95}


@pytest.fixture(scope="module")
def generated(run: Path) -> list[dict[str, Any]]:
    lines = [json.dumps({"prompt": prompt, "seed": 7, **HOW}) for prompt in PROMPTS]
    return succeed("generate", run, "--file", "-", "--jsonl", "-n", "2", stdin="\n".join(lines).encode()).jsonl()


def test_the_texts_are_those_of_generate(client: Any, run: Path, generated: list[dict[str, Any]]) -> None:
    made = client.completions.create(model=run.name, prompt=PROMPTS, n=2, seed=7, **HOW)
    assert [choice.text for choice in made.choices] == [each["text"] for each in generated]
    assert [choice.index for choice in made.choices] == list(range(8))
    assert made.usage.completion_tokens == sum(len(each["tokens"]) for each in generated)
    assert made.usage.prompt_tokens == sum(map(len, PROMPTS))
    assert {choice.finish_reason for choice in made.choices} <= {"stop", "length"}
    unknown = client.completions.create(model=run.name, prompt="∂x∂", max_tokens=1).choices[0].unknown
    assert unknown == ["∂"]


def test_streams_of_many_clients_at_once(client: Any, run: Path, generated: list[dict[str, Any]]) -> None:
    def stream(number: int) -> tuple[str, list[str]]:
        pieces = client.completions.create(
            model=run.name, prompt=PROMPTS[number % 4], seed=7, stream=True, logprobs=3, **HOW
        )
        texts, tokens, reasons = [], [], []
        for piece in pieces:
            texts.append(piece.choices[0].text)
            tokens += piece.choices[0].logprobs.tokens
            reasons.append(piece.choices[0].finish_reason)
            for token, score, top in zip(*(
                getattr(piece.choices[0].logprobs, name) for name in ("tokens", "token_logprobs", "top_logprobs")
            ), strict=True):  # fmt: skip
                assert len(top) == 3
                assert list(top.values()) == sorted(top.values(), reverse=True)
                assert top.get(token, score) == score
        assert all(reason is None for reason in reasons[:-1])
        assert reasons[-1] is not None
        return "".join(texts), tokens

    with ThreadPoolExecutor(12) as threads:
        for number, (text, tokens) in enumerate(threads.map(stream, range(24))):
            expected = generated[2 * (number % 4)]
            assert text == expected["text"]
            assert tokens == expected["tokens"]


def test_a_stream_tells_nothing_of_a_stop_string(client: Any, run: Path) -> None:
    whole = client.completions.create(model=run.name, prompt=PROMPTS[1], n=2, seed=7, extra_body=LASTING, **HOW)
    texts_without = [choice.text for choice in whole.choices]
    for stop in (texts_without[0][5:8], texts_without[0][9:11]):
        how = {**HOW, "stop": [stop], "stream_options": {"include_usage": True}, "extra_body": LASTING}
        pieces = client.completions.create(model=run.name, prompt=PROMPTS[1], n=2, seed=7, stream=True, **how)
        texts = ["", ""]
        for piece in pieces:
            for choice in piece.choices:
                texts[choice.index] += choice.text
        assert piece.usage.total_tokens > piece.usage.prompt_tokens == len(PROMPTS[1])
        assert texts == [text.partition(stop)[0] for text in texts_without]


def test_more_of_the_api(client: Any, run: Path, generated: list[dict[str, Any]]) -> None:
    assert [model.id for model in client.models.list()] == [run.name]
    assert client.models.retrieve(run.name).owned_by == "rnnpipe"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.models.retrieve("gpt")
    echoed = client.completions.create(model=run.name, prompt=PROMPTS[1], echo=True, seed=7, **HOW)
    assert echoed.choices[0].text == PROMPTS[1] + generated[2]["text"]
    more = {"top_k": 5, **LASTING}
    greedy = [
        client.completions.create(model=run.name, prompt="The", temperature=0, extra_body=more).choices[0].text
        for _ in range(2)
    ]
    assert greedy[0] == greedy[1]
    assert len(greedy[0]) == 16
    drawn = {client.completions.create(model=run.name, prompt="The").seed for _ in range(3)}
    assert len(drawn) == 3, "without a seed every request has another"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_token": 3}, "max_token.*mean.*max_tokens"),
        ({"best_of": 3}, "best_of=3"),
        ({"temperature": -1}, "temperature=-1"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_tokens": 10**6}, "at most 4096"),
        ({"n": 500}, "500 texts"),
        ({"n": True}, "n=True"),
        ({"seed": -1}, "seed=-1"),
        ({"stop": [""]}, "empty text"),
        ({"prompt": [1, 2]}, "ids of tokens"),
        ({"prompt": []}, "list of texts"),
        ({"prompt": "x" * 5000}, "5000 tokens"),
        ({"logprobs": 50}, "logprobs=50"),
        ({"samplers": ["top-kk:k=2"]}, "top-k"),
        ({"samplers": 3}, "samplers"),
        ({"stream": "yes"}, "stream='yes'"),
        ({"stream_options": {"x": 1}}, "include_usage"),
        ({"echo": True, "logprobs": 1}, "/score"),
    ],
)
def test_what_is_wrong_is_told(server: Any, more: dict[str, Any], said: str) -> None:
    status, answer = ask(server, "/v1/completions", {"prompt": "The", **more})
    assert status == 400, answer
    assert re.search(said, answer["error"]["message"]), answer


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"[" * 100_000, b'{"prompt": "\\ud800"}', b"\xff"])
def test_bodies_that_are_no_request(server: Any, body: bytes) -> None:
    assert ask(server, "/v1/completions", body)[0] == 400
    assert ask(server, "/health")[0] == 200


def test_predict_and_score_are_those_of_the_commands(server: Any, run: Path) -> None:
    texts = ["The ki", "", "A pot ∂"]
    told = ask(server, "/predict", {"texts": texts, "top": 4})[1]["results"]
    assert told == [succeed("predict", run, text, "--top", "4", "--json").json() for text in texts]
    assert ask(server, "/predict", {"text": texts[0], "top": 4})[1] == told[0]
    for end in (False, True):
        scores = ask(server, "/score", {"texts": texts, "end": end})[1]["results"]
        words = ["score", run, "--json", "--file", "-", *(["--end"] if end else [])]
        assert scores == succeed(*words, stdin="\n".join([*texts[:2], texts[2] + "\n"]).encode()).jsonl()
    for body in ({}, {"text": 3}, {"texts": []}, {"text": "x", "texts": ["y"]}, {"text": "x", "topp": 3}):
        assert ask(server, "/predict", body)[0] == 400
    assert ask(server, "/predict", {"text": "x", "top": 0})[0] == 400
    assert ask(server, "/score", {"text": "x", "end": 1})[0] == 400
    assert ask(server, "/score", {"text": "x" * 5000})[0] == 400


def test_paths(server: Any) -> None:
    assert ask(server, "/nothing")[0] == 404
    assert ask(server, "/v1/completions")[0] == 405
    status, page = ask(server, "/")
    assert (status, "textarea" in page) == (200, True)
    assert ask(server, "/health")[1]["status"] == "ok"
    for line in ask(server, "/metrics")[1].splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) rnnpipe_\w+ .+|rnnpipe_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? \S+', line), (
            line
        )
    assert figure(server, 'rnnpipe_requests_total{path="other",status="404"}') >= 1


def test_a_page_of_somebody_else_is_refused(server: Any) -> None:
    assert ask(server, "/v1/completions", {"prompt": "x"}, Host="evil.example:80")[0] == 403
    assert ask(server, "/health", Host="localhost:1")[0] == 200
    assert ask(server, "/health", Host="[::1]:1")[0] == 200


ENDLESS = {"max_tokens": 10**6, **LASTING}


@contextlib.contextmanager
def asking(server: Any, body: dict[str, Any], *, whole: bool = True) -> Iterator[socket.socket]:
    """Ask for completions, and go away with the end of the block. whole: or without the end of the body."""
    address, data = urllib.parse.urlsplit(server.url), json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(head.encode() + (data if whole else data[:-1]))
        yield client


def test_limits(run: Path) -> None:
    with served(run, rows=1, body_bytes=200, tokens=10**7, waiting=1, client_requests=3) as server:
        assert ask(server, "/v1/completions", {"prompt": "x" * 300})[0] == 413
        assert ask(server, "/v1/completions", {**ENDLESS, "n": 3})[0] == 503
        with asking(server, ENDLESS):
            wait_until(lambda: figure(server, "rnnpipe_texts") == 1)
            with asking(server, ENDLESS):
                wait_until(lambda: figure(server, "rnnpipe_texts") == 2)
                assert figure(server, "rnnpipe_rows_running") == 1, "one has the row and one waits"
                assert ask(server, "/v1/completions", ENDLESS)[0] == 503
                with asking(server, ENDLESS, whole=False):
                    wait_until(lambda: ask(server, "/health")[0] == 429)
        wait_until(lambda: ask(server, "/health")[0] == 200 and figure(server, "rnnpipe_texts") == 0)
        assert ask(server, "/v1/completions", {"max_tokens": 3})[0] == 200


def test_limits_of_time(run: Path) -> None:
    with served(run, rows=1, tokens=10**7, seconds=1) as server:
        assert ask(server, "/v1/completions", ENDLESS)[0] == 408
        assert figure(server, "rnnpipe_texts") == 0, "the row is free again"
        status, events = ask(server, "/v1/completions", {**ENDLESS, "stream": True})
        assert status == 200
        assert "not done within 1 seconds" in events.split("\n\n")[-2]
        with asking(server, ENDLESS, whole=False) as slow:
            assert b" 408 " in slow.recv(100)


def test_who_goes_away_frees_the_row(run: Path) -> None:
    with served(run, tokens=10**7) as server:
        for stream in (True, False):
            with asking(server, {**ENDLESS, "stream": stream}) as client:
                wait_until(lambda: figure(server, "rnnpipe_rows_running") == 1)
                if stream:
                    client.recv(1000)
            wait_until(lambda: figure(server, "rnnpipe_rows_running") == 0)
            assert figure(server, "rnnpipe_texts") == 0


def test_a_key(run: Path) -> None:
    with served(run, key="open sesame".replace(" ", "-")) as server:
        assert ask(server, "/health", Host="any.example")[0] == 200
        assert ask(server, "/")[0] == 200
        for path in ("/v1/models", "/metrics"):
            assert ask(server, path)[0] == 401
            assert ask(server, path, Authorization="Bearer wrong")[0] == 401
            assert ask(server, path, Authorization="Bearer open-sesame", Host="any.example")[0] == 200
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="open-sesame", max_retries=0) as client:
            assert client.models.list().data[0].id == run.name
            assert client.completions.create(model="any", prompt="The", extra_body=LASTING).choices[0].text
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
    with served(run, host="0.0.0.0") as server:
        assert len(server.key) > 20, "one is made where others can ask"


def test_a_sampler_that_fails_ends_its_own_texts(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnpipe.generation.truncation import MinP

    monkeypatch.setattr(MinP, "adjust", lambda *args: 1 / 0)
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(ask, server, "/v1/completions", {"max_tokens": 400, **LASTING})
        status, answer = ask(server, "/v1/completions", {"prompt": "x", "samplers": ["min-p:p=0.1"]})
        assert (status, "a sampler has failed: ZeroDivisionError" in answer["error"]["message"]) == (500, True)
        assert other.result()[1]["usage"]["completion_tokens"] == 400
    assert ask(server, "/health")[0] == 200


def test_the_engine_fails(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnpipe.generation.torch_network import TorchNetwork

    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with served(run) as server:
        monkeypatch.setattr(TorchNetwork, "read", lambda *args: 1 / 0)
        status, answer = ask(server, "/v1/completions", {"prompt": "x"})
        assert (status, "the engine has failed: ZeroDivisionError" in answer["error"]["message"]) == (500, True)
        assert ask(server, "/health")[0] == 503
        assert ask(server, "/v1/completions", {"prompt": "x"})[0] == 503


def test_a_signal_ends_it_behind_the_last_answer(run: Path) -> None:
    words = [sys.executable, "-m", "rnnpipe", "serve", str(run), "--port", "0", "--max-tokens", "100000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        body = {"prompt": "x", "max_tokens": 1500, **LASTING, "stream": True}
        with contextlib.closing(http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)) as client:
            client.request("POST", "/v1/completions", json.dumps(body).encode())
            answer = client.getresponse()
            events = answer.readline().decode()  # it has begun
            os.kill(process.pid, signal.SIGTERM)
            events += answer.read().decode()
        _, said = process.communicate(timeout=120)
    assert events.endswith("data: [DONE]\n\n")
    assert sum(len(json.loads(event[6:])["choices"][0]["text"]) for event in events.split("\n\n")[:-2]) == 1500
    assert process.returncode == 0, said
    assert "all requests that were taken are answered" in said


def test_what_cannot_be_served(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen there" in fail("serve", run, "--port", taken.getsockname()[1], code=1)
    key = tmp_path / "key"
    key.write_text("two words\n")
    assert "no blank" in fail("serve", run, "--key-file", key, code=1)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'rnnpipe[serve]'" in fail("serve", run, code=2)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here")
def test_the_page_in_a_browser(server: Any, generated: list[dict[str, Any]], tmp_path: Path) -> None:
    with open_page(str(CHROMIUM), tmp_path) as page:
        page.command("Page.navigate", url=server.url)
        page.wait_for("document.querySelectorAll('#next tr').length == 10")
        page.evaluate("document.getElementById('prompt').focus()")
        page.command("Input.insertText", text=PROMPTS[1])
        likely = ask(server, "/predict", {"text": PROMPTS[1]})[1]["next"]
        share = json.dumps(f"{100 * likely[0]['probability']:.1f} %")
        page.wait_for(f"document.querySelector('#next td:nth-child(2)').textContent == {share}")
        for name, value in {**HOW, "seed": 7}.items():
            page.evaluate(f"document.getElementById('{name}').value = '{value}'")
        page.evaluate("document.getElementById('go').click()")
        page.wait_for("document.getElementById('status').textContent.startsWith('ended: ')")
        assert page.evaluate("document.getElementById('text').textContent") == PROMPTS[1] + generated[2]["text"]
        assert page.evaluate("document.querySelectorAll('#next tr').length") == 10
        tokens = page.evaluate("[...document.querySelectorAll('#text button')].map((each) => each.textContent)")
        assert tokens == generated[2]["tokens"]
        page.evaluate("document.querySelector('#text button').click()")
        assert repr(tokens[0])[1:-1] in page.evaluate("document.getElementById('behind').textContent")

        page.evaluate("document.getElementById('temperature').value = '-1'")
        page.evaluate("document.getElementById('form').noValidate = true; document.getElementById('go').click()")
        page.wait_for("document.getElementById('status').textContent.includes('temperature=-1')")

        page.command("Page.navigate", url=f"{server.url}/?prompt=A&max_tokens=3&seed=7&go")
        page.wait_for("document.getElementById('status')?.textContent.startsWith('ended: ')")
