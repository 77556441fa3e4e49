"""Replies to judge, and a server of answers that plays a script."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator

from rlcd_jax.judging import chat_api, verdicts

QUESTION = "Which reply is kinder? Answer (A) or (B)."


def samples(num=3, systems=("rlcd", "rlaif"), reply="{system} says {i}"):
    return [
        verdicts.JudgedReply(
            f"p{i}",
            system,
            f"Human: Hello {i}?\n\nAssistant:",
            reply.format(system=system, i=i),
        )
        for i in range(num)
        for system in systems
    ]


def rate_of(given):
    return sum(verdict.points for verdict in given) / len(given)


def completion(text, finish="stop", **more):
    message = {"role": "assistant", "content": text}
    choices = [{"message": message, "finish_reason": finish}]
    return json.dumps({"choices": choices, **more}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Plays the next entry of the server's script, then its answer function."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            trouble = self.server.script.pop(0) if self.server.script else None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.play(trouble, body)

    def play(self, trouble, body):
        if isinstance(trouble, int):
            self.send(trouble, b'{"error": "secret-key is no good"}')
        elif trouble == "hang up":
            self.connection.close()
        elif trouble == "slow":
            time.sleep(0.6)
            self.send(200, completion("(A)"))
        elif trouble == "trickle":
            for byte in b"HTTP/1.1 200 OK\r\nx-a: " + b"y" * 12:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
        elif isinstance(trouble, tuple):
            self.send(*trouble)
        elif trouble == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(12):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif isinstance(trouble, bytes):
            self.send(200, trouble)
        else:
            self.send(200, self.server.answer(body))

    def send(self, status, data, after="7"):
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", after)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


SLOW = ("slow", "drip", "trickle")  # what such a server does
IMPATIENT = {"timeout_seconds": 0.3}  # less than it takes for any of these


@contextlib.contextmanager
def serving() -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve on this machine; tests read ``seen`` and set ``script`` and ``answer``."""
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.lock, one.seen, one.script = threading.Lock(), [], []
    one.answer = lambda body: completion(
        "(A)", usage={"prompt_tokens": 100, "completion_tokens": 1}
    )
    one.daemon_threads = True
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def make_api(server, tmp_path, **changes):
    port = server.server_address[1]
    values = {
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": "judge-1",
        "cache": str(tmp_path / "cache"),
        "price_input": 10.0,
        "price_output": 30.0,
        "max_cost": 1.0,
        "max_tokens": 50,
        "timeout_seconds": 60.0,  # a busy machine is no slow judge
        "max_tries": 3,
        "concurrency": 1,
        **changes,
    }
    pauses = []
    api = chat_api.ChatApi(
        chat_api.ApiSettings(**values), "secret-key", sleep=pauses.append
    )
    return api, pauses
