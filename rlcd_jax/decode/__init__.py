"""Drawing replies: requests, slots, the cache, sampling, stop strings.

A sample depends on its request alone. Nothing here knows what a reply is for.
"""
