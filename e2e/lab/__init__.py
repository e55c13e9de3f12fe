"""A lab of real Samba servers in network namespaces. Its API: e2e/README.md."""

from .application import Application
from .calls import Call
from .capture import Capture
from .control import Control
from .engine import Engine
from .exercise import Exercise
from .footprint import Footprint, Peak, memory, zombies
from .lab import CRYPTO, Lab, LabError, live_labs, reap
from .probe import Probe
from .readers import Readers
from .trial import Trial
from .walkers import Walkers
from .writers import Writers

__all__ = ['Application', 'CRYPTO', 'Call', 'Capture', 'Control', 'Engine', 'Exercise', 'Footprint', 'Lab', 'LabError', 'Peak',
           'Probe', 'Readers', 'Trial', 'Walkers', 'Writers', 'live_labs', 'memory', 'reap',
           'zombies']
