"""The files of settings beside a tokenizer: which are read, and that they can be."""

from __future__ import annotations

import pathlib

SETTINGS = (  # read by transformers or here, where they are
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.*",
    "config.json",
)


def check_links(folder: pathlib.Path) -> None:
    """Refuse a folder in which a file that is read if it is there cannot be read.

    A cache of models holds links to its files: of one whose file was not fetched, the
    settings would be left out without a word.

    Raises:
      ValueError: with the name of the file.
    """
    for path in sorted(folder.iterdir()):
        if not any(map(path.match, SETTINGS)) or path.is_file():
            continue
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"{path} is a link to a file that is not there; fetch the model again"
            )
        raise ValueError(f"{path} is no file; remove it, or put the file there")
