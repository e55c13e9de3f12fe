"""fs-exercise on the client: random operations on a file or a tree, each compared with a model (e2e/tools/)."""

import os
import subprocess

from .lab import LabError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(ROOT, 'build', 'release', 'tests', 'fs-exercise')


class Exercise:
    """`with Exercise(lab, folder, '--direct', operations=1000) as run: …; run.result(60)`. It runs on its own."""

    def __init__(self, lab, folder, *options, **values):
        words = [f'--{name.replace("_", "-")}={value}' for name, value in values.items()]
        self._command = [PROGRAM, *options, *words, folder]
        self._process = lab.popen_in('client', self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def is_running(self):
        return self._process.poll() is None

    def result(self, timeout):
        """(exit code, what it printed); its head explains both."""
        try:
            text, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f'{" ".join(self._command)}: still running after {timeout} s') from None
        return self._process.returncode, text
