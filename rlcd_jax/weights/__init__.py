"""Weights of other programs: Hugging Face folders, GGUF files, the embedded model.

`names` is the one table of parameter names; `hf` and `gguf` read a format,
`hf` writes one too; `files` and `fields` refuse what a folder or a field may not
hold, before a loop or an array is made from it; `resolve` turns a `model=` setting
into a model, `exchange` brings weights in and hands them out, with a check.
Nothing here trains, and nothing here prints.
"""
