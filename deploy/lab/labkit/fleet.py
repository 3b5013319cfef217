"""Ready-made fleets of guests."""

import concurrent.futures

from . import beats, guests, shell
from .model import LabError

# The demo: six busy guests, all on h1, each asking for 13 % of a core, and two that do next to nothing.
# With a quota of 55 % a host, h1 gets some 80 % to do and the others nothing; two busy guests per host,
# even three, fit. What was measured with these numbers stands in docs/lab.md.
DEMO_BUSY = 6
DEMO_IDLE = ('h2', 'h3')
DEMO_LOAD = 130         # thousandths of a core


def demo(lab, load=DEMO_LOAD):
    """Returns the names of the busy guests and of the idle ones."""
    if len(lab.hosts) < 3:
        raise LabError('the demo fleet wants three hosts')
    busy = [f'web{i}' for i in range(1, DEMO_BUSY + 1)]
    idle = [f'idle{i}' for i in range(1, len(DEMO_IDLE) + 1)]
    places = [('h1', name) for name in busy] + list(zip(DEMO_IDLE, idle, strict=True))
    start_all(lab, places)
    for name in busy:
        guests.set_dials(lab, name, f'l{load}')
    for name in idle:
        guests.set_dials(lab, name, 'l5')
    return busy, idle


def start_all(lab, places):
    """Start guests, given as (host, name), some at a time, and wait for the first heartbeat of each."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(guests.add, lab, guests.parse([host, name])) for host, name in places]:
            done.result()
    for host, name in places:
        shell.wait_until(lambda h=host, n=name: beats.of_host(lab, lab.host(h), n), f'{name} on {host} to boot',
                         pause=0.1)
