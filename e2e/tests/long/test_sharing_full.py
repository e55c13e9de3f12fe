"""test_sharing.py at the full count: 10,000 lines of each appender, 2,000 transactions of each program."""

import test_sharing
from test_sharing import (local_folders, one_node, test_appenders_of_one_node,  # noqa: F401  pylint: disable=unused-import
                          test_appenders_of_two_nodes, test_locks_of_one_node, test_locks_of_two_nodes,
                          test_on_a_local_disk_all_is_right, test_sqlite_by_one_program, test_sqlite_by_two_nodes,
                          test_sqlite_by_two_programs_of_one_node, two_nodes)

LAB = test_sharing.LAB
test_sharing.LINES, test_sharing.TRANSACTIONS, test_sharing.PATIENCE = 10_000, 2000, 1800
