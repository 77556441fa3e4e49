"""Which files of a Hugging Face folder hold its weights, and folders written whole.

The choice is that of transformers: `model.safetensors` if it is there, else what
`model.safetensors.index.json` says, tensor by tensor. Whatever else lies in the
folder is not read. What the folder's name tables call a file stays inside the folder;
symbolic links are followed, since the hub's cache consists of them.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors

from rlcd_jax import fetched, local_paths, schema

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F32", "BF16", "F16", "F64")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MOST_NAMED = 8  # of files or tensors that one message names

Tensors = dict[str, Any]  # name of a tensor to the open file that holds it


def weight_map(folder: pathlib.Path) -> dict[str, pathlib.Path] | pathlib.Path:
    """Return where a folder's tensors lie.

    Returns:
      The one file that holds them all, or the file of each tensor by its name.

    Raises:
      ValueError: there are no weights, or in another form; it says what there is and
        what to do.
    """
    with fetched.reading(folder):
        return _weight_map(folder)


def _weight_map(folder: pathlib.Path) -> dict[str, pathlib.Path] | pathlib.Path:
    refuse_adapter(folder)
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        return single
    if not index.is_file():
        raise ValueError(f"{folder} has no weights ({WEIGHTS}){_instead(folder)}")
    said = fetched.read_object(index)
    listed = said.get("weight_map")
    _check_facts(said, index)
    if not isinstance(listed, dict) or not listed:
        raise ValueError(
            f"{index}: weight_map is {fetched.show(listed)}; accepted: an object from "
            "names of tensors to names of files; restore the file"
        )
    paths = {name: folder / _inside(file, index) for name, file in listed.items()}
    absent = sorted({path.name for path in paths.values() if not path.is_file()})
    if absent:
        raise ValueError(
            f"{index} names files that are not there: {_some(absent)}; "
            "download the folder again"
        )
    return paths


def _check_facts(said: Mapping[str, Any], index: pathlib.Path) -> None:
    """Refuse what an index says beside its table, where it is damaged."""
    unknown = [name for name in said if name not in ("metadata", "weight_map")]
    facts = said.get("metadata", {})
    size = facts.get("total_size", 0) if isinstance(facts, dict) else None
    is_size = schema.is_number(size, float) and size >= 0 and size == int(size)
    if unknown or not is_size:
        shown = (
            f"has a field {fetched.show(unknown[0])}"
            if unknown
            else f"has the metadata {fetched.show(facts)}, total_size "
            f"{fetched.show(size)}"
        )
        raise ValueError(
            f"{index} {shown}; accepted: weight_map, and metadata with a whole number "
            "total_size; restore the file"
        )


def _inside(file: Any, index: pathlib.Path) -> str:
    """Return a file name of an index, which may not lead out of the folder."""
    is_name = isinstance(file, str) and 0 < len(file) <= 255 and file.isprintable()
    if is_name and file.endswith(".safetensors"):
        path = pathlib.PurePosixPath(file)
        if not (path.is_absolute() or ".." in path.parts or "\\" in file):
            return file
    raise ValueError(
        f"{index} names the file {fetched.show(file)}; accepted: names of .safetensors "
        "files in the same folder; restore the file"
    )


def refuse_adapter(folder: pathlib.Path) -> None:
    """Refuse a folder with a LoRA adapter: transformers would apply it, and we not."""
    there = [name for name in ADAPTERS if (folder / name).is_file()]
    if there:
        raise ValueError(
            f"{folder} holds a LoRA adapter ({', '.join(there)}), which would change "
            "the weights beside it or needs those of another model; merge it with "
            "peft's merge_and_unload and save_pretrained, or move the adapter away"
        )


def _instead(folder: pathlib.Path) -> str:
    """Return what a folder without weights has instead, and what to do."""
    inside = sorted(path.name for path in folder.iterdir())
    torch = [name for name in inside if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    other = [name for name in inside if name.endswith(".safetensors")]
    ggufs = [name for name in inside if name.endswith(".gguf")]
    below = [name for name in inside if (folder / name / "config.json").is_file()]
    if other:
        return (
            f" and no {INDEX}; it has {_some(other)}, which transformers does not read "
            f"either: rename the file that is the model to {WEIGHTS}, or download the "
            "folder again with its index"
        )
    if torch:
        return (
            f"; it has {_some(torch)}, which can run code when it is read: save the "
            "model once as safetensors with transformers' save_pretrained (weights "
            "as Meta released them: its convert_llama_weights_to_hf first)"
        )
    if ggufs:
        return f"; it has {_some(ggufs)}: name the file, gguf:{folder / ggufs[0]}"
    if below:
        return f"; models lie below it: name {' or '.join(map(str, below[:3]))} in it"
    return "; download the folder again"


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def open_tensors(folder: pathlib.Path) -> Tensors:
    """Open a folder's weights; only the files' headers are read.

    Returns:
      The open file that holds each tensor, by the tensor's name; a part is read by
      `get_slice(name)[index]`.

    Raises:
      ValueError: a file is damaged, does not hold what the index says, or holds numbers
        that are no plain floats; the message names the file and the tensor.
    """
    where = weight_map(folder)
    if isinstance(where, pathlib.Path):
        whole = _open(where)
        holders = dict.fromkeys(whole.keys(), whole)
        paths = dict.fromkeys(holders, where)
    else:
        paths = where
        files = {path: _open(path) for path in sorted(set(where.values()))}
        held = {path: set(opened.keys()) for path, opened in files.items()}
        lacking = sorted(name for name, path in where.items() if name not in held[path])
        if lacking:
            lines = [f"{name} in {where[name].name}" for name in lacking]
            raise ValueError(
                f"{folder / INDEX} places tensors in files that lack them: "
                f"{_some(lines)}; download the folder again"
            )
        holders = {name: files[path] for name, path in where.items()}
    for name, opened in holders.items():
        kind = str(opened.get_slice(name).get_dtype())
        if kind not in FLOATS:
            raise ValueError(
                f"{paths[name]}: {name} is {kind}; accepted: {', '.join(FLOATS)}; a "
                "quantised model (fp8, int8, bitsandbytes, GPTQ, AWQ) is to be saved "
                "in bfloat16 first"
            )
    return holders


def _open(path: pathlib.Path) -> Any:
    try:
        with fetched.reading(path), path.open("rb") as file:
            start = file.read(len(fetched.POINTER_START))
        fetched.refuse_pointer(path, start)
        with fetched.reading(path):
            return safetensors.safe_open(str(path), framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); download it again"
        ) from error


def check_new(path: pathlib.Path) -> None:
    """Refuse a place for a new model that is taken, or no name of a form we write.

    Args:
      path: of a folder, or of a file that ends in .gguf.
    """
    local_paths.check(path, "file" if is_gguf(path) else "folder")
    if path.suffix in (".safetensors", ".bin"):
        raise ValueError(
            f"{path} is the name of a file, and what is written is a Hugging Face "
            "folder (config.json, safetensors, tokenizer.json); give the name of a "
            "folder, or one that ends in .gguf for a GGUF file"
        )
    if is_gguf(path):
        if path.exists():
            raise ValueError(f"{path} is there already; give the name of a new file")
        return
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give a new folder")
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path} is not empty; give a new folder")


def is_gguf(path: pathlib.Path) -> bool:
    """Return whether a place is named as a GGUF file and not as a folder."""
    return path.suffix.lower() == ".gguf"


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a file to write, which gets its name when all went well.

    Args:
      path: a place where nothing is yet.

    Yields:
      A path in a temporary folder beside it; an error on the way leaves nothing.

    Raises:
      ValueError: the place is taken, or cannot be written to.
    """
    check_new(path)
    with _beside(path) as partial:
        yield partial / path.name
        (partial / path.name).chmod(0o644)
        (partial / path.name).replace(path)


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder to write in, which gets its name when all went well.

    Args:
      folder: a place that does not exist yet, or is empty.

    Yields:
      A temporary folder beside it; an error on the way leaves nothing.

    Raises:
      ValueError: the place is taken, or cannot be written to.
    """
    check_new(folder)
    with _beside(folder) as partial:
        yield partial
        _open_modes(partial)
        partial.replace(folder)


@contextlib.contextmanager
def _beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary folder beside a place; it is gone afterwards."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent)
        )
        yield partial
    except OSError as error:
        raise ValueError(
            f"{path} could not be written ({error}); nothing of it is left; free "
            "space, or give a place that can be written to"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _open_modes(folder: pathlib.Path) -> None:
    """Let others read what temporary folders and safetensors keep to their owner."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each open tensor by its name."""
    return {
        name: tuple(opened.get_slice(name).get_shape())
        for name, opened in tensors.items()
    }
