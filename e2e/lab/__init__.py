"""A lab of real Samba servers in network namespaces. Its API: e2e/README.md."""

from .capture import Capture
from .engine import Engine
from .lab import CRYPTO, Lab, LabError, live_labs, reap
from .probe import Probe
from .readers import Readers

__all__ = ['CRYPTO', 'Capture', 'Engine', 'Lab', 'LabError', 'Probe', 'Readers', 'live_labs', 'reap']
