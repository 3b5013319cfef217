"""What a lab consists of: its id, its machines ("nodes"), their addresses, and where its files lie."""

import dataclasses
import json
import os
import re

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..', '..'))
LAB_DIRECTORY = os.path.join(REPOSITORY, 'deploy', 'lab')

MANAGEMENT = '10.90.0'   # these networks exist inside the lab's own namespaces only,
MIGRATION = '10.90.1'    # so any number of labs may use them at the same time
ROUTER_ADDRESS = f'{MANAGEMENT}.1'

AGENT_PORT, AGENT_METRICS_PORT = 7441, 9641
SCHEDULER_PORT, SCHEDULER_METRICS_PORT = 7440, 9640
PROMETHEUS_PORT = 9090


class LabError(Exception):
    """Something the user can understand and act on; printed without a trace."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A machine of the lab: own network, process, mount and host-name namespaces and own cgroup."""

    name: str
    kind: str               # 'host', 'scheduler' or 'router'
    address: str            # on the management network
    migration_address: str = ''


@dataclasses.dataclass(frozen=True)
class Options:
    """How a lab was brought up; kept in its run directory so that later commands know."""

    hosts: int = 3
    schedulers: int = 3
    cpu_percent: int = 50         # of one core, per host; 0 = no quota
    memory_mib: int = 512         # what a host says it has; enforced by `memlimit` only
    etcd_members: int = 1
    prometheus: bool = True
    scrape_seconds: float = 2
    keepalive: str = '5x5'        # seconds and count after which libvirt gives up a silent peer
    disk_locks: bool = False      # whether each host's libvirt takes locks, by a virtlockd of its own
    binaries: str = ''            # directory with the Evenkeel binaries, empty if there are none


@dataclasses.dataclass(frozen=True)
class Lab:
    """One lab. Holds no state but its id: all state is in the kernel and in the run directory."""

    id: str

    def __post_init__(self):
        if not re.fullmatch(r'[a-z][a-z0-9]{0,5}', self.id):
            raise LabError(f"'{self.id}' cannot be a lab's id: use a letter and up to five letters or digits")

    def path(self, *parts):
        return os.path.join(run_root(), self.id, *parts)

    def namespace(self, node):
        """Name of the node's network namespace, as `ip netns` knows it."""
        return f'{self.id}-rt' if node.kind == 'router' else f'{self.id}-{node.name}'

    @property
    def options(self):
        try:
            with open(self.path('lab.json'), encoding='utf-8') as f:
                return Options(**json.load(f))
        except FileNotFoundError:
            raise LabError(f"lab '{self.id}' is not up") from None

    @property
    def router(self):
        return Node('router', 'router', ROUTER_ADDRESS)

    @property
    def hosts(self):
        return [Node(f'h{i}', 'host', f'{MANAGEMENT}.{10 + i}', f'{MIGRATION}.{10 + i}')
                for i in range(1, self.options.hosts + 1)]

    @property
    def schedulers(self):
        return [Node(f's{i}', 'scheduler', f'{MANAGEMENT}.{1 + i}')
                for i in range(1, self.options.schedulers + 1)]

    @property
    def nodes(self):
        return [self.router, *self.schedulers, *self.hosts]

    def node(self, name):
        for node in self.nodes:
            if name in (node.name, 'rt' if node.kind == 'router' else node.name):
                return node
        raise LabError(f"no machine '{name}' in this lab; there are {', '.join(n.name for n in self.nodes)}")

    def host(self, name):
        node = self.node(name)
        if node.kind != 'host':
            raise LabError(f"'{name}' is not a host")
        return node


def run_root():
    """Directory of all labs' run directories."""
    return os.path.abspath(os.environ.get('LAB_RUN', '/tmp/evenkeel-lab'))


def etcd_ports(member):
    """(client, peer, metrics) ports of etcd's member 1, 2 or 3; all are on the router's address."""
    base = 2379 + 10 * (member - 1)
    return base, base + 1, base - 1


def etcd_endpoints(options):
    return [f'https://{ROUTER_ADDRESS}:{etcd_ports(m)[0]}' for m in range(1, options.etcd_members + 1)]
