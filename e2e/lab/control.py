"""How long this machine keeps a thread waiting that wants to run every few milliseconds: what a loaded
machine adds to every bound."""

import os
import threading
import time

EVERY = 0.005
# A machine under load may take this many times a bound before the product is to blame. (An emulated one, which is
# used to see that something works at all, needs more: tests/long/test_old_kernel.py.)
SLACK = float(os.environ.get('DFSCSI_BOUND_SLACK', '5'))


class Control:
    """`with Control() as control:` … `control.allowed(1.0, since)`. Instants are of time.monotonic()."""

    def __init__(self):
        self._stalls = []  # (instant, how late), of those that anybody would notice.
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        last = time.monotonic()
        while not self._stop.is_set():
            time.sleep(EVERY)
            os.stat('/')  # A call into the kernel, as those under test make.
            now = time.monotonic()
            if now - last > 2 * EVERY:
                self._stalls.append((now, now - last - EVERY))
            last = now

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def longest(self, since):
        """The longest stall that ended since then, in seconds."""
        return max((late for at, late in list(self._stalls) if at >= since), default=0.0)

    def allowed(self, bound, since):
        """What a test may take the product to task for, on this machine, as busy as it is."""
        return max(SLACK * bound, bound + self.longest(since))
