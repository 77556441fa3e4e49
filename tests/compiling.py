"""What the compiler is told in the tests, and in the commands that they start.

Most of the time of these tests goes to the compiler, whose programs run for
milliseconds: without what makes them fast, and with the emitters of single operations
instead of those of fusions, it takes a quarter as long; with each program in one piece,
instead of 32 for as many cores, two thirds of that.
"""

import importlib.util
import mmap
import pathlib

ENVIRONMENT = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def _known(flag: str) -> bool:
    """Return whether the installed compiler has a flag; an unknown one ends it."""
    folder = pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent
    for library in sorted(folder.glob("libjax_common.*")):
        with open(library, "rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return text.find(flag.encode()) >= 0
    return False


_FLAGS = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}
QUICK = " ".join(f"--{name}={value}" for name, value in _FLAGS.items() if _known(name))


def flags(devices: int) -> str:
    """Return XLA's flags for quick compilation and a number of fake devices."""
    return f"{QUICK} --xla_force_host_platform_device_count={devices}".strip()
