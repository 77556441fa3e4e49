"""Text and its ids: the files of tokenizers, and what chat templates write.

No model, no JAX, and nothing that knows the method stands here.
"""
