"""Batchbell tells you when a batch is done.

One promise: every batch that was given to us ends in a webhook that was received, or in a
failure that can be seen and replayed. Nothing is lost, whatever dies.
"""

__version__ = "0.1.0"
