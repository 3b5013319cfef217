"""Telling people and programs what a lab is doing: status, a machine-readable description, pressure."""

import dataclasses
import os
import time

from . import cgroups, daemons, guests, hypervisor, network, nodes, services
from .model import PROMETHEUS_PORT, ROUTER_ADDRESS, etcd_endpoints, run_root


def describe(lab):
    """Everything a test harness wants to know, as one value."""
    options = lab.options
    return {
        'id': lab.id,
        'run_directory': lab.path(),
        'options': dataclasses.asdict(options),
        'network_namespace': lab.namespace(lab.router),
        'control_group': cgroups.unified(lab),
        'certificates': lab.path('certs'),
        'client_config': daemons.client_config_path(lab),
        'viewer_config': daemons.client_config_path(lab, 'viewer'),
        'etcd': {'endpoints': etcd_endpoints(options),
                 'members': {f'etcd-{m}': {'pid': first(services.etcd_pids(lab, m)),
                                           'log': services.directory(lab, f'etcd-{m}.log')}
                             for m in services.etcd_members(lab)}},
        'prometheus': {'url': f'http://{ROUTER_ADDRESS}:{PROMETHEUS_PORT}',
                       'pid': first(services.prometheus_pids(lab))},
        'hosts': [describe_node(lab, host) | {
            'libvirt_uri': hypervisor.uri(host), 'uuid': hypervisor.host_uuid(lab, host),
            'migration_address': host.migration_address, 'libvirtd_pid': first(hypervisor.pids(lab, host)),
            'virtlockd_pid': first(hypervisor.lock_pids(lab, host)),
            'guest_logs': os.path.join(nodes.directory(lab, host), 'log', 'qemu')} for host in lab.hosts],
        'schedulers': [describe_node(lab, node) for node in lab.schedulers],
    }


def describe_node(lab, node):
    return {
        'name': node.name, 'address': node.address, 'on': nodes.is_on(lab, node),
        'init_pid': nodes.init_pid(lab, node), 'network_namespace': lab.namespace(node),
        'control_group': cgroups.unified(lab, node.name), 'directory': nodes.directory(lab, node),
        'config': daemons.config_path(lab, node), 'log': daemons.log_path(lab, node),
        'pid': first(daemons.pids(lab, node)), 'cpu_percent': cgroups.cpu_quota(lab, node.name),
    }


def first(pids):
    return pids[0] if pids else None


def pressure(lab, seconds):
    """How much of the time something waited for CPU, and how much CPU was used, per host, in percent."""
    def read():
        return {h.name: (cgroups.stalled_us(lab, h.name), cgroups.used_us(lab, h.name)) for h in lab.hosts}

    before, start = read(), time.monotonic()
    time.sleep(seconds)
    after, elapsed_us = read(), (time.monotonic() - start) * 1e6
    return {name: {'stalled_percent': round(100 * (after[name][0] - before[name][0]) / elapsed_us, 1),
                   'used_percent': round(100 * (after[name][1] - before[name][1]) / elapsed_us, 1)}
            for name in before}


def status_lines(lab):
    options = lab.options
    yield f"lab '{lab.id}' in {lab.path()}, control group {cgroups.unified(lab)}"
    members = ' '.join(f'etcd-{m}:{state(services.etcd_pids(lab, m))}' for m in services.etcd_members(lab))
    yield (f'router     {ROUTER_ADDRESS:<12} {members} '
           f'prometheus:{state(services.prometheus_pids(lab)) if options.prometheus else "off"}')
    for node in lab.schedulers:
        yield f'{node.name:<10} {node.address:<12} scheduler:{state(daemons.pids(lab, node))}'
    for host in lab.hosts:
        running = hypervisor.running_guests(lab, host)
        names = 'libvirt does not answer' if running is None else ' '.join(running) or '-'
        yield (f'{host.name:<10} {host.address:<12} {"on " if nodes.is_on(lab, host) else "off"} '
               f'cpu:{cgroups.cpu_quota(lab, host.name) or "-"}% libvirtd:{state(hypervisor.pids(lab, host))} '
               f'agent:{state(daemons.pids(lab, host))} guests: {names}')


def state(pids):
    return pids[0] if pids else 'no'


def labs_on_this_machine():
    """Ids of all labs of which anything is here, by their control groups, namespaces and directories."""
    ids = {d.removeprefix('evenkeel-') for d in os.listdir(cgroups.UNIFIED) if d.startswith('evenkeel-')}
    if os.path.isdir(run_root()):
        ids |= set(os.listdir(run_root()))
    if os.path.isdir(network.NAMESPACES):
        ids |= {n.removesuffix('-rt') for n in os.listdir(network.NAMESPACES) if n.endswith('-rt')}
    return sorted(ids)


def guest_rows(lab):
    for host in lab.hosts:
        for name in hypervisor.running_guests(lab, host) or []:
            yield {'guest': name, 'host': host.name, 'pid': first(guests.qemu_pids(lab, host, name))}
