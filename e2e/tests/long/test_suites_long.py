"""test_suites.py: every stressor, for longer, and CPython's files of more than 2 GiB."""

import pytest

import test_suites
from test_suites import (ALL_STRESSORS, LAB, a_local_folder_and_one_of_the_mount, check_python,  # noqa: F401  pylint: disable=unused-import
                         check_stressor)

test_suites.SECONDS, test_suites.PATIENCE = 10, 900


@pytest.mark.parametrize('stressor', ALL_STRESSORS)
def test_stressor_for_longer(lab, folders, stressor):
    check_stressor(lab, folders, stressor)


def test_large_files(lab, folders):
    check_python(lab, folders, ['test_largefile'])
