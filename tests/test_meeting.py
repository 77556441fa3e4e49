"""Two real processes meet at a place of the program, or find that they do not."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
PROCESS = """
import json, sys
import jax
from rlcd_jax import processes
port, index, places = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
jax.devices()  # or the other process would wait for them
print(json.dumps([processes.met(*place) for place in places]))
"""


def test_processes_meet_where_both_come_within_the_time():
    """The second place is of one process each; after it they can meet again."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = str(one.getsockname()[1])
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    together = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, port, str(index), json.dumps(places)],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, places in enumerate(
            [["first", 120], [f"only of {index}", 0.2], ["last", 120]]
            for index in range(2)
        )
    ]
    found = [json.loads(one.communicate(timeout=300)[0]) for one in together]
    assert found == [[True, False, True]] * 2
