"""test_healthy_link.py for a minute."""

import test_healthy_link
from test_healthy_link import (make_control,  # noqa: F401  pylint: disable=unused-import
                               test_nothing_else_stalls_while_one_link_is_frozen)

LAB = test_healthy_link.LAB
test_healthy_link.SECONDS = 60
