"""Switching nodes on and off, and running commands on them.

A node is: a network namespace, a control group, and a process `node-init.sh` that is PID 1 of a PID
namespace with its own mounts and host name. Nothing about it is written down that the kernel can tell:
its init is found by looking into the control group, so a command killed half-way leaves no wrong record.
"""

import contextlib
import os
import shlex
import signal

from . import cgroups, shell
from .model import LabError

INIT = os.path.join(os.path.dirname(__file__), 'node-init.sh')


def directory(lab, node):
    return lab.path(node.name)


def begin_power_on(lab, node):
    """Start the node's init; `finish_power_on` waits for it, so that many nodes can start at once."""
    path = directory(lab, node)
    with contextlib.suppress(FileNotFoundError):
        os.remove(f'{path}/ready')
    unshare = ['ip', 'netns', 'exec', lab.namespace(node), 'unshare', '-m', '-u', '-i', '-C', '-p',
               '--fork', '--kill-child', '--mount-proc', '/bin/bash', INIT]
    shell.start(cgroups.join_and_exec(lab, node.name, unshare), f'{path}/init.log',
                env={'NODE': node.name, 'KIND': node.kind, 'DIR': path, 'LAB': lab.path()})


def finish_power_on(lab, node):
    path = directory(lab, node)
    try:
        shell.wait_until(lambda: os.path.exists(f'{path}/ready') and init_pid(lab, node), f'{node.name} to start')
    except LabError as error:
        raise LabError(f'{error}\n{shell.tail(f"{path}/init.log")}') from error


def power_off(lab, node):
    """Every process of the node dies at once; its disk (the run directory) stays."""
    cgroups.kill(lab, node.name)


def init_pid(lab, node):
    """PID of the node's PID 1, as seen from here; None when the node is off."""
    for pid in cgroups.pids(lab, node.name):
        nested = [line.split()[1:] for line in shell.read(f'/proc/{pid}/status').splitlines()
                  if line.startswith('NSpid:')]
        if nested and len(nested[0]) > 1 and nested[0][-1] == '1':
            return pid
    return None


def is_on(lab, node):
    return init_pid(lab, node) is not None


def inside(lab, node, argv, keep_directory=False):
    """argv that runs `argv` as a part of the node: in all its namespaces and its control groups.

    On the router the PID namespace is left out, so that signals and terminals work as for any command.
    """
    pid = init_pid(lab, node)
    if not pid:
        raise LabError(f'{node.name} is off')
    flags = ['-m', '-u', '-n', '-i', '-C', *([] if node.kind == 'router' else ['-p'])]
    where = [f'--wdns={os.getcwd()}'] if keep_directory else []
    return cgroups.join_and_exec(lab, node.name, ['nsenter', '-t', str(pid), *flags, *where, '--', *argv])


def start_service(lab, node, argv, log):
    """Start a program on the node in the background; it becomes a child of the node's init."""
    pid = init_pid(lab, node)
    if not pid:
        raise LabError(f'{node.name} is off')
    enter = ['nsenter', '-t', str(pid), '-m', '-u', '-n', '-i', '-C', '-p', '--', 'setsid', '-f', *argv]
    starter = shell.start(cgroups.join_and_exec(lab, node.name, enter), log)
    if starter.wait():
        raise LabError(f'{shlex.join(argv)} did not start on {node.name}\n{shell.tail(log)}')


def find(lab, node, program, argument=''):
    """PIDs of the node's live processes of that program, oldest first, with `argument` in the command line."""
    found = []
    for pid in cgroups.pids(lab, node.name):
        fields = shell.read(f'/proc/{pid}/stat').rsplit(') ', 1)
        if len(fields) < 2 or fields[1][0] in 'ZX':
            continue
        words = shell.read(f'/proc/{pid}/cmdline').split('\0')
        names = {os.path.basename(word) for word in words[:2]}    # the second is a script's name
        if program in names and argument in '\0'.join(words):
            found.append((int(fields[1].split()[19]), pid))
    return [pid for _, pid in sorted(found)]


SIGNALS = {'kill': signal.SIGKILL, 'term': signal.SIGTERM, 'stop': signal.SIGSTOP, 'cont': signal.SIGCONT}


def send(pids, action):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, SIGNALS[action])
