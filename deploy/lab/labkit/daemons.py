"""Evenkeel itself in the lab: configuration files, starting, and finding agents and schedulers."""

import os
import shutil
import time

from . import cgroups, network, nodes, shell
from .model import (AGENT_METRICS_PORT, AGENT_PORT, REPOSITORY, SCHEDULER_METRICS_PORT, SCHEDULER_PORT, LabError,
                    etcd_endpoints)

PROGRAMS = {'host': 'evenkeel-agent', 'scheduler': 'evenkeel-scheduler'}
KINDS = {'host': 'agent', 'scheduler': 'scheduler'}


def default_binaries():
    """Where a build has put the daemons; empty when there is none."""
    target = os.environ.get('CARGO_TARGET_DIR', f'{REPOSITORY}/target')
    candidates = [os.environ.get('LAB_BIN', ''), f'{target}/release', f'{target}/debug']
    for directory in filter(None, candidates):
        if all(os.access(f'{directory}/{program}', os.X_OK) for program in PROGRAMS.values()):
            return os.path.abspath(directory)
    return ''


def config_path(lab, node):
    return os.path.join(nodes.directory(lab, node), f'{KINDS[node.kind]}.toml')


def log_path(lab, node):
    return os.path.join(nodes.directory(lab, node), f'{KINDS[node.kind]}.log')


def client_config_path(lab, role='operator'):
    return lab.path('evenkeel.toml' if role == 'operator' else f'{role}.toml')


def _toml(tables):
    """Top-level keys under '' first; strings, numbers and lists of strings only."""
    def value(v):
        if isinstance(v, list):
            return '[' + ', '.join(value(item) for item in v) + ']'
        return f'"{v}"' if isinstance(v, str) else str(v)

    blocks = []
    for table, entries in tables.items():
        head = [f'[{table}]'] if table else []
        blocks.append('\n'.join(head + [f'{key} = {value(v)}' for key, v in entries.items()]) + '\n')
    return '\n'.join(blocks)


def _tls(lab, identity):
    certificates = lab.path('certs')
    return {'ca': f'{certificates}/ca.pem', 'certificate': f'{certificates}/{identity}.pem',
            'key': f'{certificates}/{identity}.key'}


def agent_config(lab, host):
    options = lab.options
    return _toml({
        '': {'cluster': 'lab', 'host': host.name, 'state_dir': os.path.join(nodes.directory(lab, host), 'agent')},
        'etcd': {'endpoints': etcd_endpoints(options)},
        'tls': _tls(lab, f'agent-{host.name}'),
        'listen': {'grpc': f'{host.address}:{AGENT_PORT}', 'metrics': f'{host.address}:{AGENT_METRICS_PORT}'},
        'libvirt': {'uri': 'qemu:///system', 'peer_uri': f'qemu+tcp://{host.address}/system',
                    'migration_uri': f'tcp://{host.migration_address}'},
        'capacity': {'cpu_cores': (options.cpu_percent or 100 * os.cpu_count()) / 100,
                     'memory_mib': options.memory_mib},
        'sources': {'proc': '/proc', 'pressure': '/proc/pressure',
                    'cgroup': '/run/cgroup' if cgroups.HYBRID else '/sys/fs/cgroup'},
    })


def scheduler_config(lab, node):
    return _toml({
        '': {'cluster': 'lab', 'name': node.name},
        'etcd': {'endpoints': etcd_endpoints(lab.options)},
        'tls': _tls(lab, f'scheduler-{node.name}'),
        'listen': {'grpc': f'{node.address}:{SCHEDULER_PORT}', 'metrics': f'{node.address}:{SCHEDULER_METRICS_PORT}'},
    })


def client_config(lab, identity):
    return _toml({'': {'schedulers': [f'https://{s.address}:{SCHEDULER_PORT}' for s in lab.schedulers]},
                  'tls': _tls(lab, identity)})


def write_configs(lab, drop_ins=()):
    """All configuration files; `drop_ins` are (kind, file) pairs that the daemons read after their own."""
    for node in daemon_nodes(lab):
        text = agent_config(lab, node) if node.kind == 'host' else scheduler_config(lab, node)
        shell.write(config_path(lab, node), text)
        for number, (kind, file) in enumerate(drop_ins):
            if kind == KINDS[node.kind]:
                shell.write(f'{config_path(lab, node)}.d/{50 + number}-lab.toml', shell.read(file))
    shell.write(client_config_path(lab), client_config(lab, 'operator-lab'))
    shell.write(client_config_path(lab, 'viewer'), client_config(lab, 'viewer-guest'))


def daemon_nodes(lab):
    return [*lab.schedulers, *lab.hosts]


def program_path(lab, program, directory=''):
    directory = directory or lab.options.binaries or default_binaries()
    path = os.path.join(directory, program) if directory else shutil.which(program)
    if not path or not os.access(path, os.X_OK):
        raise LabError(f"no program {program}{f' in {directory}' if directory else ''}: build first "
                       'or say where it is (lab up --bin DIR, or LAB_BIN)')
    return path


def start(lab, node, directory=''):
    if pids(lab, node):
        raise LabError(f'{PROGRAMS[node.kind]} on {node.name} runs already')
    program = program_path(lab, PROGRAMS[node.kind], directory)
    nodes.start_service(lab, node, [program, '--config', config_path(lab, node)], log_path(lab, node))


def stop_all(lab):
    """Ask all of them to end, and wait for it."""
    for node in daemon_nodes(lab):
        nodes.send(pids(lab, node), 'term')
    for node in daemon_nodes(lab):
        shell.wait_until(lambda n=node: not pids(lab, n), f'{PROGRAMS[node.kind]} on {node.name} to end')


def pids(lab, node):
    return nodes.find(lab, node, PROGRAMS[node.kind])


def _has_ended(lab, node):
    """Looked at for half a second: one that has just been started is not itself yet."""
    for _ in range(5):
        if pids(lab, node):
            return False
        time.sleep(0.1)
    return True


def wait_ready(lab):
    """Until every daemon listens. One that has ended, or never listens, is an error that shows its log."""
    for node in daemon_nodes(lab):
        port = AGENT_METRICS_PORT if node.kind == 'host' else SCHEDULER_METRICS_PORT
        try:
            shell.wait_until(lambda n=node, p=port: _has_ended(lab, n) or network.listens(lab, n.address, p),
                             f'{PROGRAMS[node.kind]} on {node.name} to listen', seconds=30, pause=0.05)
            if _has_ended(lab, node):
                raise LabError(f'{PROGRAMS[node.kind]} on {node.name} has ended')
        except LabError as error:
            raise LabError(f'{error}\n{shell.tail(log_path(lab, node))}') from error
