"""What readers see while a target or the namespace's root dies: medians of three runs, each within its bound."""

import statistics

import bench
from lab import Control

LAB = {'big_mib': 64}
# killed, reset: noticed at once. Cut off, frozen: after a while of silence. A root is not needed at all.
BOUNDS = {'kill': 0.5, 'reset': 0.5, 'drop': 3.0, 'stop': 3.0}
ROOT_BOUND = 0.5


def test_medians_of_stalls(lab):
    with Control() as control:
        found = bench.measure_failover(lab, others=False)
        late = []
        for (name, fault), runs in found.items():
            assert len(runs) == bench.RUNS, f'{name}, {fault} could not be measured: {bench.ATTEMPTS.failures}'
            median = statistics.median(stall for stall, _ in runs)
            bound = ROOT_BOUND if 'root' in name else BOUNDS[fault]
            print(f'{name}, {fault}: {median:.2f} s of {[round(stall, 2) for stall, _ in runs]}, bound {bound} s')
            assert not any(errors for _, errors in runs), (name, fault, runs)
            if median > control.allowed(bound, 0):
                late.append((name, fault, median))
    assert not late, late
