"""test_resources.py at the full count: marks after 1,000 and 10,000 cycles, within 2 % without any allowance."""

import test_resources
from test_resources import (keep_a_mount, test_mounting_leaks_nothing,  # noqa: F401  pylint: disable=unused-import
                            test_opening_leaks_nothing)

LAB = test_resources.LAB
test_resources.MOUNTS = test_resources.OPENS = [1000, 10_000]
test_resources.NOISE_KIB = 0
