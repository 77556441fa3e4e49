"""What models that are only read say of texts: rewards, letters, votes, KL and more.

Each module makes one compiled program and a host function over texts or rows of ids;
votes are drawn by the decode engine.
Nothing here trains, and nothing here knows which stage asks.
"""
