"""Ready-made fleets of guests."""

import concurrent.futures
import contextlib
import time

from . import beats, cgroups, guests, shell
from .model import LabError

# The demo: six busy guests, all on h1, each asking for 14 % of a core, and two that do next to nothing.
# With a quota of 55 % a host, h1 is asked for 84 % and the others for nothing. Two busy guests a host fit
# well; three are at the edge. What was measured with these numbers stands in docs/lab.md.
DEMO_BUSY = 6
DEMO_IDLE = ('h2', 'h3')
DEMO_SHARE = 0.14            # of a core, per busy guest

PROBE_DIAL = 'l250'          # more than h1 can give: makes the guests use all of its quota
PROBE_SECONDS = 4


def demo(lab):
    """Places the guests and sets their dials; returns what they are."""
    if len(lab.hosts) < 3:
        raise LabError('the demo fleet wants three hosts')
    busy = [f'web{i}' for i in range(1, DEMO_BUSY + 1)]
    idle = [f'idle{i}' for i in range(1, len(DEMO_IDLE) + 1)]
    start_all(lab, [('h1', name) for name in busy] + list(zip(DEMO_IDLE, idle, strict=True)))
    cost = cost_of_work(lab, lab.host('h1'), busy)
    dial = max(1, round(DEMO_SHARE / cost))
    set_all(lab, busy, f'w{dial}')
    return {'busy': busy, 'idle': idle, 'host': 'h1', 'work_per_guest': dial,
            'core_seconds_per_1000_units': round(cost * 1000, 6)}


def start_all(lab, places):
    """Start guests, given as (host, name), some at a time, and wait for the first heartbeat of each."""
    with without_quotas(lab), concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(guests.add, lab, guests.parse([host, name])) for host, name in places]:
            done.result()
        for host, name in places:
            shell.wait_until(lambda h=host, n=name: beats.of_host(lab, lab.host(h), n),
                             f'{name} on {host} to boot', pause=0.1)


@contextlib.contextmanager
def without_quotas(lab):
    """Booting six guests within half a core takes a while, and nobody wants to watch it."""
    quotas = {host.name: cgroups.cpu_quota(lab, host.name) for host in lab.hosts}
    try:
        for name in quotas:
            cgroups.set_cpu_quota(lab, name, 0)
        yield
    finally:
        for name, quota in quotas.items():
            cgroups.set_cpu_quota(lab, name, quota)


def set_all(lab, names, dials):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: guests.set_dials(lab, name, dials), names))


def cost_of_work(lab, host, names):
    """Core-seconds that a unit of work really takes there, measured while the guests compete for the host.

    The speed a guest measures at boot is that of an undisturbed moment, up to half as fast again.
    """
    set_all(lab, names, PROBE_DIAL)
    time.sleep(1)
    used, start = cgroups.used_us(lab, host.name), time.monotonic()
    time.sleep(PROBE_SECONDS)
    cores = (cgroups.used_us(lab, host.name) - used) / 1e6 / (time.monotonic() - start)
    units = sum(beats.work_rate(beats.of_host(lab, host, name), PROBE_SECONDS) or 0 for name in names)
    if not units:
        raise LabError('the guests did no work while it was measured what work costs')
    return cores / units
