"""What models that are only read say of texts: rewards, letters, likelihoods, KL.

Each module makes one compiled program and a host function over texts or rows of ids.
Nothing here trains, and nothing here knows which stage asks.
"""
