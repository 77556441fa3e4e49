"""Weights of other programs: Hugging Face folders, GGUF files, the embedded model."""
