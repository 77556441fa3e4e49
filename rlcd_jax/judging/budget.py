"""A limit on what a command may spend, shared by everything that asks.

A call reserves an upper bound before it is sent and settles with what it cost, so calls
under way at once cannot go above the limit together.
"""

from __future__ import annotations

import threading

ROUNDING = 1e-9  # of sums of prices


class Spent(RuntimeError):
    """The limit leaves no room for another call."""


class Budget:
    """Money that several threads and several parts of a command spend.

    Args:
      limit: the most that may be spent, in the currency of the prices.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._spent = 0.0
        self._reserved = 0.0
        self._under_way = 0
        self._changed = threading.Condition()

    @property
    def spent(self) -> float:
        """What settled calls cost."""
        with self._changed:
            return self._spent

    @property
    def left(self) -> float:
        """What is neither spent nor reserved."""
        with self._changed:
            return self.limit - self._spent - self._reserved

    def reserve(self, amount: float) -> None:
        """Set an amount aside; wait while calls under way may still give some back.

        Raises:
          Spent: the amount does not fit, and nothing under way can change that.
        """
        with self._changed:
            most = self.limit + ROUNDING
            while self._spent + self._reserved + amount > most:
                if not self._under_way or self._spent + amount > most:
                    raise Spent(
                        f"spent {self._spent:.4f}; another call may cost {amount:.4f}, "
                        f"which is more than max_cost = {self.limit:g} leaves"
                    )
                self._changed.wait()
            self._reserved += amount
            self._under_way += 1

    def settle(self, reserved: float, cost: float) -> None:
        """Replace a reserved amount by what the call cost."""
        with self._changed:
            self._under_way -= 1
            self._reserved = self._reserved - reserved if self._under_way else 0.0
            self._spent += cost
            self._changed.notify_all()
