"""What runs on the router: etcd, Prometheus, and disks that guests of all hosts can reach (NBD)."""

import os

from . import network, nodes, shell
from .model import (AGENT_METRICS_PORT, PROMETHEUS_PORT, REPOSITORY, ROUTER_ADDRESS, SCHEDULER_METRICS_PORT,
                    LabError, etcd_ports)

FIRST_DISK_PORT = 10809


def directory(lab, *parts):
    return os.path.join(nodes.directory(lab, lab.router), *parts)


# ---- etcd ----

def etcd_members(lab):
    return range(1, lab.options.etcd_members + 1)


def etcd_argv(lab, member):
    client, peer, metrics = etcd_ports(member)
    certificates = lab.path('certs')
    cluster = ','.join(f'etcd-{m}=https://{ROUTER_ADDRESS}:{etcd_ports(m)[1]}' for m in etcd_members(lab))
    flags = {
        'name': f'etcd-{member}',
        'data-dir': directory(lab, f'etcd-{member}'),
        'listen-client-urls': f'https://{ROUTER_ADDRESS}:{client}',
        'advertise-client-urls': f'https://{ROUTER_ADDRESS}:{client}',
        'listen-peer-urls': f'https://{ROUTER_ADDRESS}:{peer}',
        'initial-advertise-peer-urls': f'https://{ROUTER_ADDRESS}:{peer}',
        'listen-metrics-urls': f'http://{ROUTER_ADDRESS}:{metrics}',
        'initial-cluster': cluster,
        'initial-cluster-token': f'evenkeel-{lab.id}',
        'logger': 'zap', 'log-level': 'warn', 'log-outputs': 'stderr',
    }
    for prefix in ('', 'peer-'):
        flags |= {f'{prefix}trusted-ca-file': f'{certificates}/ca.pem', f'{prefix}client-cert-auth': 'true',
                  f'{prefix}cert-file': f'{certificates}/etcd-router.pem',
                  f'{prefix}key-file': f'{certificates}/etcd-router.key'}
    return ['etcd', *(f'--{name}={value}' for name, value in flags.items())]


def start_etcd(lab, member):
    nodes.start_service(lab, lab.router, etcd_argv(lab, member), directory(lab, f'etcd-{member}.log'))


def etcd_pids(lab, member):
    return nodes.find(lab, lab.router, 'etcd', f'--name=etcd-{member}\0')


def wait_etcd(lab):
    for member in etcd_members(lab):
        metrics = etcd_ports(member)[2]
        try:
            shell.wait_until(lambda p=metrics: network.http_ok(lab, ROUTER_ADDRESS, p, '/health'),
                             f'etcd-{member} to be healthy', pause=0.05)
        except LabError as error:
            raise LabError(f"{error}\n{shell.tail(directory(lab, f'etcd-{member}.log'))}") from error


def etcdctl_argv(lab, args):
    certificates = lab.path('certs')
    endpoints = ','.join(f'https://{ROUTER_ADDRESS}:{etcd_ports(m)[0]}' for m in etcd_members(lab))
    return ['env', 'ETCDCTL_API=3', 'etcdctl', f'--endpoints={endpoints}', f'--cacert={certificates}/ca.pem',
            f'--cert={certificates}/operator-lab.pem', f'--key={certificates}/operator-lab.key', *args]


# ---- Prometheus ----

def prometheus_config(lab):
    """Written by hand: the standard library has no YAML, and this needs little of it."""
    jobs = {
        'evenkeel-agent': [f'{h.address}:{AGENT_METRICS_PORT}' for h in lab.hosts],
        'evenkeel-scheduler': [f'{s.address}:{SCHEDULER_METRICS_PORT}' for s in lab.schedulers],
        'etcd': [f'{ROUTER_ADDRESS}:{etcd_ports(m)[2]}' for m in etcd_members(lab)],
    }
    interval = f'{int(lab.options.scrape_seconds * 1000)}ms'
    lines = ['global:', f'  scrape_interval: {interval}', f'  scrape_timeout: {interval}',
             f'  evaluation_interval: {interval}', 'rule_files:', f'  - {directory(lab, "rules", "*.yml")}',
             *(f'  - {os.path.join(REPOSITORY, "deploy", "prometheus", name)}'
               for name in ('evenkeel-rules.yml', 'evenkeel-alerts.yml')),
             'scrape_configs:']
    for job, targets in jobs.items():
        lines += [f'  - job_name: {job}', '    static_configs:', f'      - targets: [{", ".join(targets)}]']
    return '\n'.join(lines) + '\n'


def start_prometheus(lab):
    shell.write(directory(lab, 'prometheus.yml'), prometheus_config(lab))
    nodes.start_service(lab, lab.router, [
        'prometheus', f'--config.file={directory(lab, "prometheus.yml")}',
        f'--storage.tsdb.path={directory(lab, "prometheus")}', '--log.level=warn',
        f'--web.listen-address={ROUTER_ADDRESS}:{PROMETHEUS_PORT}', '--web.enable-lifecycle',
    ], directory(lab, 'prometheus.log'))


def prometheus_pids(lab):
    return nodes.find(lab, lab.router, 'prometheus')


def wait_prometheus(lab):
    try:
        shell.wait_until(lambda: network.http_ok(lab, ROUTER_ADDRESS, PROMETHEUS_PORT, '/-/ready'),
                         'Prometheus to be ready', pause=0.05)
    except LabError as error:
        raise LabError(f"{error}\n{shell.tail(directory(lab, 'prometheus.log'))}") from error


# ---- shared disks ----

def export_disk(lab, name, mib):
    """Serve a disk image over NBD to all hosts; returns its port. An exported disk keeps its port."""
    image = directory(lab, 'disks', f'{name}.raw')
    os.makedirs(os.path.dirname(image), exist_ok=True)
    port_file = f'{image}.port'
    if not os.path.exists(image):
        with open(image, 'wb') as f:
            f.truncate(mib << 20)
    if not os.path.exists(port_file):
        taken = sum(1 for entry in os.listdir(os.path.dirname(image)) if entry.endswith('.port'))
        shell.write(port_file, str(FIRST_DISK_PORT + taken))
    port = int(shell.read(port_file))
    if not nodes.find(lab, lab.router, 'qemu-nbd', image):
        nodes.start_service(lab, lab.router, ['qemu-nbd', '-t', '-e', '8', '-f', 'raw', '-x', name,
                                              '-b', ROUTER_ADDRESS, '-p', str(port), image],
                            directory(lab, 'nbd.log'))
        shell.wait_until(lambda: network.listens(lab, ROUTER_ADDRESS, port), f"{name}'s disk to be served")
    return port
