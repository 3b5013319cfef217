"""Control groups: what belongs to which node, how much CPU and memory it has, and how to kill all of it.

Every process of a lab is in the version-2 tree `evenkeel-<id>/<node>`, also `lab up` itself while it
works. So one write to `cgroup.kill` ends a lab, whatever state a killed command left it in, and no
process outside it can be hit. On machines with both versions ("hybrid") the CPU and memory controllers
are in version 1, and the same names are used there.
"""

import contextlib
import os

from . import shell
from .model import LabError

ROOT = '/sys/fs/cgroup'
HYBRID = os.path.isdir(f'{ROOT}/unified')
UNIFIED = f'{ROOT}/unified' if HYBRID else ROOT
PERIOD_US = 100_000
# A lab comes before what else runs on the machine, or a compiler's load shows as its hosts' pressure. Quotas
# bound what it takes.
SHARES, WEIGHT = 65536, 6400      # of version 1, of version 2: 64 times that of an ordinary group


def name(lab):
    return f'evenkeel-{lab.id}'


def unified(lab, node_name=''):
    return os.path.join(UNIFIED, name(lab), node_name).rstrip('/')


def directories(lab, node_name=''):
    """All control groups of a node (or of the lab); the version-2 one, which decides membership, first."""
    bases = [UNIFIED, f'{ROOT}/cpu', f'{ROOT}/memory'] if HYBRID else [UNIFIED]
    return [os.path.join(base, name(lab), node_name).rstrip('/') for base in bases]


def create(lab, node_name):
    if not HYBRID:
        _enable_controllers(UNIFIED)
    for directory in directories(lab):
        os.makedirs(directory, exist_ok=True)
    if HYBRID:
        _set(f'{ROOT}/cpu/{name(lab)}/cpu.shares', SHARES)
    else:
        _enable_controllers(unified(lab))
        _set(f'{unified(lab)}/cpu.weight', WEIGHT)
    for directory in directories(lab, node_name):
        os.makedirs(directory, exist_ok=True)


def _enable_controllers(directory):
    os.makedirs(directory, exist_ok=True)
    _set(f'{directory}/cgroup.subtree_control', '+cpu +memory')


def join_and_exec(lab, node_name, argv):
    """argv that first moves itself into the node's control groups, then becomes `argv`."""
    joins = ' && '.join(f'echo $$ > {d}/cgroup.procs' for d in directories(lab, node_name))
    return ['/bin/sh', '-c', f'{joins} && exec "$@"', 'lab', *argv]


def join(lab, node_name):
    """Move the calling process there."""
    create(lab, node_name)
    with open(f'{unified(lab, node_name)}/cgroup.procs', 'w', encoding='ascii') as f:
        f.write('0')


def pids(lab, node_name):
    try:
        return [int(p) for p in shell.read(f'{unified(lab, node_name)}/cgroup.procs').split()]
    except OSError:       # the group is going away under our hands
        return []


def kill(lab, node_name=''):
    """Kill every process of the node (or of the whole lab) and wait until they are gone."""
    directory = unified(lab, node_name)
    if not os.path.isdir(directory):
        return
    with open(f'{directory}/cgroup.kill', 'w', encoding='ascii') as f:
        f.write('1')
    shell.wait_until(lambda: 'populated 1' not in shell.read(f'{directory}/cgroup.events'),
                     f'the processes in {directory} to die')


def remove(lab):
    """Remove the lab's (empty) groups; those in version 1 may take a moment after the last process."""
    for directory in directories(lab):
        for path, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                shell.wait_until(lambda p=path: _removed(p), f'{path} to be removable')


def _removed(path):
    try:
        os.rmdir(path)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def exists(lab):
    return any(os.path.isdir(d) for d in directories(lab))


def set_cpu_quota(lab, node_name, percent):
    """`percent` of one core; 0 means no limit."""
    quota = percent * PERIOD_US // 100
    if HYBRID:
        directory = f'{ROOT}/cpu/{name(lab)}/{node_name}'
        _set(f'{directory}/cpu.cfs_period_us', PERIOD_US)
        _set(f'{directory}/cpu.cfs_quota_us', quota or -1)
    else:
        _set(f'{unified(lab, node_name)}/cpu.max', f"{quota or 'max'} {PERIOD_US}")


def cpu_quota(lab, node_name):
    """In percent of one core; 0 means no limit."""
    if HYBRID:
        quota = shell.read(f'{ROOT}/cpu/{name(lab)}/{node_name}/cpu.cfs_quota_us', '-1').strip()
    else:
        quota = (shell.read(f'{unified(lab, node_name)}/cpu.max').split() or ['max'])[0]
    return 0 if quota in ('-1', 'max') else int(quota) * 100 // PERIOD_US


def set_memory_limit(lab, node_name, mib):
    """0 means no limit. There is no swap: guests beyond the limit are killed by the kernel, not slowed."""
    if HYBRID:
        _set(f'{ROOT}/memory/{name(lab)}/{node_name}/memory.limit_in_bytes', mib << 20 or -1)
    else:
        _set(f'{unified(lab, node_name)}/memory.max', mib << 20 or 'max')


def _set(path, value):
    try:
        with open(path, 'w', encoding='ascii') as f:
            f.write(str(value))
    except OSError as error:
        raise LabError(f'{path}: cannot set {value}: {error.strerror}') from error


def stalled_us(lab, node_name, resource='cpu'):
    """Microseconds in which something (`some`) waited for the resource, ever."""
    line = shell.read(f'{unified(lab, node_name)}/{resource}.pressure').splitlines()
    return int(line[0].rsplit('total=', 1)[1]) if line else 0


def used_us(lab, node_name):
    """Microseconds of CPU time used, ever."""
    stat = shell.read(f'{unified(lab, node_name)}/cpu.stat', 'usage_usec 0')
    return int(stat.split('usage_usec ', 1)[1].split()[0])
