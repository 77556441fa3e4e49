"""A host that loads a model holds little more than its devices' shares of it.

A process of its own loads onto fake devices, whose memory is the host's, while this one
watches its anonymous memory: pages of mapped files are the page cache's, and go when
others need them. float32 arrays are made of bfloat16, F16 and Q8_0 files, of half their
size and less.
"""

import contextlib
import pathlib
import subprocess
import sys
import threading
import time

import gguf
import loading_model
import pytest

from rlcd_jax import checkpoint, tree
from rlcd_jax.models import llama, table
from rlcd_jax.weights import hf, names

MOST = 1.3  # times what the devices hold in the end
# The C library keeps freed pieces of up to 32 MB for the next ones: a few dozen MB, which
# are nothing beside a model, but a third of this one.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
HERE = pathlib.Path(__file__).parent
LOADER = HERE / "loading_memory.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the model's files by their form."""
    folder = tmp_path_factory.mktemp("saved")
    params = loading_model.make()
    hf.export(folder / "hf", params, loading_model.CFG, dtype="bfloat16")
    for kind in ("F16", "Q8_0"):
        write_gguf(folder / f"{kind}.gguf", params, gguf.GGMLQuantizationType[kind])
    with checkpoint.Checkpointer(folder / "saved", max_to_keep=1) as keeper:
        keeper.save(1, {"policy": params}, {})
    yield folder
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def write_gguf(path, params, kind):
    """Write the tensors of a GGUF file; rows of Q and K are left as they are."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, values in names.disassemble(params, loading_model.CFG, "gguf"):
        if values.ndim == 1:
            writer.add_tensor(name, values)
            continue
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def anonymous(pid):
    """Return the bytes of a process that are of no file."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


class Watch(threading.Thread):
    """Reads a process's anonymous memory every few milliseconds."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.stop = pid, 0, False

    def run(self):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while not self.stop:
                self.most = max(self.most, anonymous(self.pid))
                time.sleep(0.002)


def peak_and_share(form, path, mesh):
    """Return the most memory that loading took, and what the devices hold after it."""
    process = subprocess.Popen(
        [sys.executable, str(LOADER), form, str(path), *map(str, mesh)],
        cwd=HERE.parent,
        env={
            "PYTHONPATH": f"{HERE.parent}:{HERE}",
            "PATH": "/usr/bin:/bin",
            **GIVE_BACK,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        before = anonymous(process.pid)
        watch = Watch(process.pid)
        watch.start()
        process.stdin.write("\n")
        process.stdin.flush()
        share = int(process.stdout.readline())
        watch.stop = True
        watch.join()
        process.stdin.close()
    return watch.most - before, share


@pytest.mark.parametrize(
    ("form", "path", "mesh"),
    [
        ("hf", "hf", (1, 1, 1)),
        ("hf", "hf", (1, 4, 2)),
        ("gguf", "F16.gguf", (1, 4, 2)),
        ("gguf", "Q8_0.gguf", (1, 1, 8)),
        ("checkpoint", "saved", (1, 4, 2)),
        ("checkpoint", "saved", (1, 8, 1)),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_loading_takes_little_more_than_the_share(saved, form, path, mesh):
    peak, share = peak_and_share(form, saved / path, mesh)
    shapes = table.abstract_params(llama.param_specs(loading_model.CFG))
    assert share >= 4 * tree.count_params(shapes) > 2e8
    assert share < 1.02 * peak and peak < MOST * share, (peak / share, share)
