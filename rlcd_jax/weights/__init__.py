"""Weights of other programs: Hugging Face folders, GGUF files, the embedded model.

`names` is the one table of parameter names; `hf` and `gguf` read a format, `hf` and
`gguf_writing` write one; `files` and `fields` refuse what a folder or a field may not
hold, before a loop or an array is made from it; `resolve` turns a `model=` setting
into a model, `exchange` brings weights in and hands them out, with the check of
`read_again` and the words of `model_card`.
Nothing here trains, and nothing here prints.
"""
