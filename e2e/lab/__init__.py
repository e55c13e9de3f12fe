"""A lab of real Samba servers in network namespaces. Its API: e2e/README.md."""

from .application import Application
from .capture import Capture
from .engine import Engine
from .lab import CRYPTO, Lab, LabError, live_labs, reap
from .probe import Probe
from .readers import Readers
from .trial import Trial

__all__ = ['Application', 'CRYPTO', 'Capture', 'Engine', 'Lab', 'LabError', 'Probe', 'Readers', 'Trial',
           'live_labs', 'reap']
