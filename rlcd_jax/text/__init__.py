"""Text and its ids: dialogues, the files of tokenizers, what chat templates write.

No model, no JAX, and nothing that knows the method stands here.
"""
