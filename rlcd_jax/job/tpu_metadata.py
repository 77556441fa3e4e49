"""What the metadata server of a TPU VM says of its slice, as variables."""

from __future__ import annotations

import pathlib
import urllib.request
from collections.abc import Callable, Iterable, Mapping

URL = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"
FLAVOR = {"Metadata-Flavor": "Google"}
DEVICES = ("/dev/accel0", "/dev/vfio/0")  # one is there on a TPU VM
LONGEST = 2**20  # bytes of an attribute
# Variables that say that the server need not, or must not, be asked.
INSTEAD = ("TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES")


def variables(ask: Callable[[str], str | None]) -> dict[str, str]:
    """Return the variables that say what a TPU VM's metadata server says of its slice.

    Args:
      ask: from the name of an attribute of the instance to its text; None: it has no
        such attribute.
    """
    index, listed = ask("agent-worker-number"), ask("worker-network-endpoints")
    if index is None or not listed:
        return {}
    # Each is a host name, or "name:id:address".
    addresses = [one.split(":")[-1].strip() for one in listed.split(",")]
    told = {"TPU_WORKER_ID": index, "TPU_WORKER_HOSTNAMES": ",".join(addresses)}
    for line in (ask("tpu-env") or "").splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip().startswith("MEGASCALE_"):
            told[name.strip()] = value.strip().strip("'")
    return told


def read(name: str) -> str | None:
    """Return an attribute of this Google Cloud machine; None: it has none."""
    request = urllib.request.Request(f"{URL}/{name}", headers=FLAVOR)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read(LONGEST).decode()
    except (OSError, UnicodeDecodeError):
        return None


def beside(
    environ: Mapping[str, str],
    *,
    devices: Iterable[str] = DEVICES,
    ask: Callable[[str], str | None] = read,
) -> dict[str, str]:
    """Return an environment, on a TPU VM with what its metadata say beside it.

    Args:
      environ: variables, which go before the metadata.
      devices: paths of which one exists on a TPU VM.
      ask: as of `variables`.
    """
    on_tpu = any(pathlib.Path(path).exists() for path in devices)
    if not on_tpu or any(name in environ for name in INSTEAD):
        return dict(environ)
    return {**variables(ask), **environ}
