"""Bringing a lab up, taking it down, and taking it down when the program it served has died."""

import contextlib
import dataclasses
import json
import os
import select
import shutil
import subprocess
import sys

from . import cgroups, daemons, guests, hypervisor, network, nodes, services, shell
from .model import LAB_DIRECTORY, LabError, Options, run_root

MAKE_CERTS = os.path.join(LAB_DIRECTORY, '..', 'certs', 'make-certs')
LAB_COMMAND = os.path.join(LAB_DIRECTORY, 'lab')
PROGRAMS = ('ip', 'tc', 'iptables', 'nsenter', 'unshare', 'setsid', 'libvirtd', 'virsh', 'qemu-system-x86_64',
            'qemu-nbd', 'etcd', 'etcdctl', 'prometheus', 'gcc', 'ld', 'openssl')
UP_GROUP = 'up'     # the control group in which `lab up` works, so that `lab down` can end it too


def up(lab, options: Options, drop_ins=(), watch_pid=0):
    """All of it; returns when everything answers."""
    check_machine(options)
    claim(lab, options)
    if watch_pid:
        start_watchdog(lab, watch_pid)
    cgroups.join(lab, UP_GROUP)
    certificates = start_making_certificates(lab)
    guests.build_kernel(lab)
    network.create(lab)
    create_nodes(lab)
    if certificates.wait():
        raise LabError(f"certificates: {shell.read(lab.path('certs.log'))}")
    daemons.write_configs(lab, drop_ins)
    start_services(lab)
    for host in lab.hosts:
        hypervisor.give_certificates(lab, host)
        hypervisor.start(lab, host)
    wait_for_services(lab)
    if options.binaries:
        start_daemons(lab)


def check_machine(options):
    """Say in one line what is missing, instead of failing somewhere in the middle."""
    if os.geteuid():
        raise LabError('the lab makes namespaces and control groups: run it as root')
    programs = (*PROGRAMS, 'virtlockd') if options.disk_locks else PROGRAMS
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise LabError(f"missing {', '.join(missing)}: deploy/setup-debian --lab installs what the lab needs")
    if not os.path.exists(f'{cgroups.UNIFIED}/cpu.pressure'):
        raise LabError('the kernel does not show pressure (PSI) per control group: boot it with psi=1')


def claim(lab, options):
    """Making the run directory is the lock: only one `up` of an id can win."""
    try:
        _make_directory(lab.path())
    except FileExistsError:
        raise LabError(f"lab '{lab.id}' is up already, or was left behind: lab --id {lab.id} down") from None
    if cgroups.exists(lab) or network.existing(lab):
        os.rmdir(lab.path())
        raise LabError(f"something is left of a lab '{lab.id}' run elsewhere: lab --id {lab.id} down")
    shell.write(lab.path('lab.json'), json.dumps(dataclasses.asdict(options), indent=1))


def _make_directory(path):
    while True:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            return os.mkdir(path, 0o755)
        except FileNotFoundError:    # another lab's `down` has just removed the empty parent
            continue


def start_making_certificates(lab):
    identities = [f'etcd/router={lab.router.address},127.0.0.1,localhost', 'operator/lab', 'viewer/guest']
    identities += [f'agent/{h.name}={h.address},{h.migration_address}' for h in lab.hosts]
    identities += [f'scheduler/{s.name}={s.address}' for s in lab.schedulers]
    return shell.start([MAKE_CERTS, lab.path('certs'), *identities], lab.path('certs.log'))


def create_nodes(lab):
    shell.write(lab.path('hosts'), network.hosts_file(lab))
    os.makedirs(lab.path('shared', os.path.basename(hypervisor.LOCKSPACE)), exist_ok=True)
    for node in lab.nodes:
        os.makedirs(nodes.directory(lab, node), exist_ok=True)
        cgroups.create(lab, node.name)
        if node.kind == 'host':
            hypervisor.prepare(lab, node)
            cgroups.set_cpu_quota(lab, node.name, lab.options.cpu_percent)
        nodes.begin_power_on(lab, node)
    for node in lab.nodes:
        nodes.finish_power_on(lab, node)


def start_services(lab):
    for member in services.etcd_members(lab):
        services.start_etcd(lab, member)
    if lab.options.prometheus:
        services.start_prometheus(lab)


def wait_for_services(lab):
    for host in lab.hosts:
        hypervisor.wait_ready(lab, host)
    services.wait_etcd(lab)
    if lab.options.prometheus:
        services.wait_prometheus(lab)


def start_daemons(lab, directory=''):
    for node in daemons.daemon_nodes(lab):
        daemons.start(lab, node, directory)
    daemons.wait_ready(lab)


def power_on_again(lab, node):
    """After a power failure: the node, and whatever starts at boot on such a machine."""
    nodes.begin_power_on(lab, node)
    nodes.finish_power_on(lab, node)
    if node.kind == 'host':
        hypervisor.start(lab, node)
        hypervisor.wait_ready(lab, node)
    if node.kind == 'router':
        start_services(lab)
        wait_for_services(lab)
    elif lab.options.binaries:
        daemons.start(lab, node)


# ---- down ----

def down(lab):
    """Needs nothing to be intact: works on what the kernel shows under this lab's names."""
    for _ in range(5):
        stop_watchdog(lab)
        cgroups.kill(lab)
        network.remove(lab)
        cgroups.remove(lab)
        shutil.rmtree(lab.path(), ignore_errors=True)
        if not left_behind(lab):
            break
    with contextlib.suppress(OSError):
        os.rmdir(run_root())
    if left_behind(lab):
        raise LabError('could not remove ' + ', '.join(left_behind(lab)))


def left_behind(lab):
    """Everything that shows that a lab of this id is, or was, here."""
    left = [f'network namespace {n}' for n in network.existing(lab)]
    left += [f'control group {d}' for d in cgroups.directories(lab) if os.path.isdir(d)]
    return left + ([f'directory {lab.path()}'] if os.path.exists(lab.path()) else [])


# ---- watchdog ----

def start_watchdog(lab, pid):
    """A process outside the lab's control group that ends with the lab, or ends the lab with `pid`."""
    command = [sys.executable, LAB_COMMAND, '--id', lab.id, 'watchdog', str(pid)]
    watchdog = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, start_new_session=True, cwd='/',
                                env={**os.environ, 'LAB_RUN': run_root()})
    shell.write(lab.path('watchdog'), f'{watchdog.pid} {_start_time(watchdog.pid)}')


def watch(lab, pid):
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        watched = None
    poll = select.poll()
    if watched is not None:
        poll.register(watched, select.POLLIN)
    while os.path.exists(lab.path()):
        if watched is None or poll.poll(1000):
            return down(lab)


def stop_watchdog(lab):
    """Unless it is the watchdog itself that takes the lab down."""
    record = shell.read(lab.path('watchdog')).split()
    if record and int(record[0]) != os.getpid() and _start_time(record[0]) == record[1]:
        nodes.send([int(record[0])], 'kill')


def _start_time(pid):
    """Tells a process from a later one with the same PID."""
    fields = shell.read(f'/proc/{pid}/stat').rsplit(') ', 1)
    return fields[1].split()[19] if len(fields) > 1 else ''
