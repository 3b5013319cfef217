"""Breaking things on purpose: processes, links and whole machines."""

import functools

from . import daemons, guests, hypervisor, lifecycle, network, nodes, services, shell
from .model import ROUTER_ADDRESS, LabError, etcd_ports

ACTIONS = ('kill', 'term', 'stop', 'cont', 'start', 'restart')
PROCESSES = ('libvirtd', 'virtlockd', 'agent', 'scheduler', 'etcd', 'prometheus', 'qemu')
NETWORKS = {'mgmt': ('management',), 'migration': ('migration',), 'guests': ('guests',),
            'all': ('management', 'guests', 'migration')}


def process(lab, kind, name, action):
    """kill, term, stop and cont are signals; start starts it if it is not there; restart is kill and start."""
    if action not in ACTIONS:
        raise LabError(f"cannot '{action}' a process: use one of {', '.join(ACTIONS)}")
    find, start = _handles(lab, kind, name)
    if action in nodes.SIGNALS:
        if not find():
            raise LabError(f"no {kind} {name or ''} to {action}".replace('  ', ' '))
        nodes.send(find(), action)
    if action == 'restart':
        nodes.send(find(), 'kill')
    if action in ('kill', 'restart'):
        shell.wait_until(lambda: not find(), f'{kind} {name or ""} to die')
    if action in ('start', 'restart'):
        start()


def _handles(lab, kind, name):
    """(find its pids, start it)"""
    part = functools.partial
    if kind == 'libvirtd':
        host = lab.host(name)
        return part(hypervisor.pids, lab, host), part(_start_libvirtd, lab, host)
    if kind == 'virtlockd':
        host = lab.host(name)
        return part(hypervisor.lock_pids, lab, host), part(hypervisor.start_locks, lab, host)
    if kind in ('agent', 'scheduler'):
        node = lab.node(name)
        if daemons.KINDS.get(node.kind) != kind:
            raise LabError(f'{name} has no {kind}')
        return part(daemons.pids, lab, node), part(daemons.start, lab, node)
    if kind == 'etcd':
        member = _etcd_member(lab, name)
        return part(services.etcd_pids, lab, member), part(_start_etcd, lab, member)
    if kind == 'prometheus':
        return part(services.prometheus_pids, lab), part(services.start_prometheus, lab)
    if kind == 'qemu':
        return part(_qemu_pids, lab, name), part(_cannot_start_qemu, name)
    raise LabError(f"no kind of process '{kind}': use one of {', '.join(PROCESSES)}")


def _start_libvirtd(lab, host):
    hypervisor.start(lab, host)
    hypervisor.wait_ready(lab, host)


def _start_etcd(lab, member):
    services.start_etcd(lab, member)
    if lab.options.etcd_members == 1:       # of three, one may well come back without a quorum
        services.wait_etcd(lab)


def _etcd_member(lab, name):
    """'', '2' or 'etcd-2'"""
    number = (name or '1').removeprefix('etcd-')
    if not number.isdigit() or int(number) not in services.etcd_members(lab):
        raise LabError(f"no etcd member '{name}'")
    return int(number)


def _qemu_pids(lab, name):
    hosts, guest = guests.split_name(lab, name)
    found = [pid for host in hosts for pid in guests.qemu_pids(lab, host, guest)]
    if len(found) > 1:
        raise LabError(f'{guest} has a qemu on several hosts; say HOST/{guest}')
    return found


def _cannot_start_qemu(name):
    raise LabError(f'a guest is started by libvirt: lab virsh HOST start {name}')


# ---- links ----

def link(lab, name, which, action):
    """down, up, a rate such as 20mbit, or full (speed)."""
    if name == 'etcd' or name.startswith('etcd-'):
        return _cut_etcd_from_all(lab, name, which, action)
    node = lab.node(name)
    if which == 'etcd':
        return _cut_from_etcd(lab, node, action)
    if which not in NETWORKS:
        raise LabError(f"no network '{which}': use one of {', '.join([*NETWORKS, 'etcd'])}")
    if node.kind == 'router':
        raise LabError('the router has no cable of its own; cut the others, or etcd')
    wanted = [n for n in NETWORKS[which] if n in network.networks_of(node)]
    if not wanted:
        raise LabError(f'{name} is not on that network')
    for each in wanted:
        if action in ('up', 'down'):
            network.set_cable(lab, node, each, action == 'up')
        else:
            network.set_rate(lab, node, each, None if action == 'full' else action)
    return None


def _up_or_down(action):
    if action not in ('up', 'down'):
        raise LabError("this can be 'down' or 'up' only")
    return action == 'down'


def _cut_etcd_from_all(lab, name, which, action):
    """At the router, for packets from and to the management network; members still reach one another."""
    members = services.etcd_members(lab) if name == 'etcd' else [_etcd_member(lab, name)]
    blocked = _up_or_down(action or which)
    for member in members:
        port = str(etcd_ports(member)[0])
        network.set_filter(lab, lab.router, [
            ['INPUT', '-i', 'br-mgt', '-p', 'tcp', '--dport', port],
            ['OUTPUT', '-o', 'br-mgt', '-p', 'tcp', '--sport', port]], blocked)


def _cut_from_etcd(lab, node, action):
    """At one node: it no longer reaches any etcd member, but everything else."""
    for member in services.etcd_members(lab):
        port = str(etcd_ports(member)[0])
        network.set_filter(lab, node, [
            ['OUTPUT', '-d', ROUTER_ADDRESS, '-p', 'tcp', '--dport', port],
            ['INPUT', '-s', ROUTER_ADDRESS, '-p', 'tcp', '--sport', port]], _up_or_down(action))


def part(lab, one, other, action):
    """down: two nodes no longer reach each other, on any network; up: they do again."""
    here, there = lab.node(one), lab.node(other)
    rules = []
    for address in filter(None, (there.address, there.migration_address)):
        rules += [['INPUT', '-s', address], ['OUTPUT', '-d', address]]
    network.set_filter(lab, here, rules, _up_or_down(action))


# ---- machines ----

def machine(lab, name, action):
    """off: as if the plug was pulled; on: it boots, with what starts at boot."""
    node = lab.node(name)
    if action == 'off':
        # the cables go first: else the dying kernel side would tell every peer by closing connections
        for each in network.networks_of(node):
            network.set_cable(lab, node, each, False)
        nodes.power_off(lab, node)
    elif action == 'on':
        if nodes.is_on(lab, node):
            raise LabError(f'{name} is on')
        for each in network.networks_of(node):
            network.set_cable(lab, node, each, True)
        lifecycle.power_on_again(lab, node)
    else:
        raise LabError("a machine can be 'off' or 'on'")
