"""The same server restarts within 10 s, or is silent for 20 s: the full times of test_own_server.py."""

import pytest

from test_own_server import check_own_server

LAB = {'big_mib': 0}


@pytest.mark.parametrize('options', ['', ',durable'])
@pytest.mark.parametrize('how, seconds', [('kill', 10), ('stop', 20), ('drop', 20)])
def test_writers_with_locks_lose_nothing_when_their_server_comes_back(lab, engine, how, seconds, options):
    check_own_server(lab, engine, how, seconds, options)
