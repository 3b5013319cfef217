"""The three networks: management, migration and guests, as bridges in the router's namespace.

Each node has a namespace of its own and one cable (veth pair) per network it is on. The router's end of
a cable is called `mgt-<node>`, `mig-<node>` or `gst-<node>`: pulling it cuts off exactly that node.
"""

import contextlib
import ctypes
import os
import socket
import threading

from . import shell
from .model import LabError

NAMESPACES = '/run/netns'
BRIDGES = {'mgt': 'br-mgt', 'mig': 'br-mig', 'gst': 'br-gst'}
CABLES = {'management': ('mgt', 'eth0'), 'guests': ('gst', 'eth1'), 'migration': ('mig', 'eth2')}
CLONE_NEWNET = 0x40000000


def networks_of(node):
    """Which networks a node has a cable to; the router is where the cables end."""
    return {'host': ('management', 'guests', 'migration'), 'scheduler': ('management',), 'router': ()}[node.kind]


def create(lab):
    for node in lab.nodes:
        shell.run(['ip', 'netns', 'add', lab.namespace(node)])
    router = lab.namespace(lab.router)
    _ip(router, ['link set lo up'] + [
        f'link {what}' for bridge in BRIDGES.values()
        for what in (f'add {bridge} type bridge forward_delay 0', f'set {bridge} up')
    ] + [f'addr add {lab.router.address}/24 dev br-mgt'])
    for node in lab.nodes:
        if node.kind != 'router':
            _connect(lab, node)


def _connect(lab, node):
    inside, router = lab.namespace(node), lab.namespace(lab.router)
    cables = [CABLES[network] for network in networks_of(node)]
    _ip(router, [line for prefix, device in cables for line in (
        f'link add {prefix}-{node.name} type veth peer name {device} netns {inside}',
        f'link set {prefix}-{node.name} master {BRIDGES[prefix]} up')])
    lines = ['link set lo up', f'addr add {node.address}/24 dev eth0', 'link set eth0 up']
    if node.kind == 'host':
        lines += ['link set eth1 up', 'link add br0 type bridge forward_delay 0', 'link set eth1 master br0',
                  'link set br0 up', f'addr add {node.migration_address}/24 dev eth2', 'link set eth2 up']
    _ip(inside, lines)


def _ip(namespace, lines):
    shell.run(['ip', '-n', namespace, '-batch', '-'], input='\n'.join(lines) + '\n')


def remove(lab):
    """By name, so that a lab of which only a part was made goes as well."""
    for namespace in existing(lab):
        shell.run(['ip', 'netns', 'del', namespace], check=False)


def existing(lab):
    with contextlib.suppress(FileNotFoundError):
        return [n for n in os.listdir(NAMESPACES) if n.startswith(f'{lab.id}-')]
    return []


def hosts_file(lab):
    """/etc/hosts of every node."""
    return '127.0.0.1 localhost\n' + ''.join(f'{n.address} {n.name}\n' for n in lab.nodes)


def set_cable(lab, node, network, up):
    prefix, _ = CABLES[network]
    shell.run(['ip', '-n', lab.namespace(lab.router), 'link', 'set', f'{prefix}-{node.name}', 'up' if up else 'down'])


def set_rate(lab, node, network, rate):
    """Slow both directions of a cable to `rate` (as tc writes it: 20mbit); None makes it fast again."""
    prefix, device = CABLES[network]
    for namespace, end in ((lab.namespace(lab.router), f'{prefix}-{node.name}'), (lab.namespace(node), device)):
        shell.run(['tc', '-n', namespace, 'qdisc', 'del', 'dev', end, 'root'], check=False)
        if rate:
            shell.run(['tc', '-n', namespace, 'qdisc', 'add', 'dev', end, 'root', 'tbf',
                       'rate', rate, 'burst', '128k', 'latency', '200ms'])


def set_filter(lab, node, rules, blocked):
    """Drop, at a node, packets that match any of `rules`; or stop dropping them."""
    for rule in rules:
        base = ['ip', 'netns', 'exec', lab.namespace(node), 'iptables', '-w']
        present = shell.run([*base, '-C', *rule, '-j', 'DROP'], check=False).returncode == 0
        if present != blocked:
            shell.run([*base, '-A' if blocked else '-D', *rule, '-j', 'DROP'])


def enter(namespace):
    """Move the calling thread into a network namespace; sockets it already has stay where they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f'{NAMESPACES}/{namespace}', 'rb') as f:
        if libc.setns(f.fileno(), CLONE_NEWNET):
            raise LabError(f'cannot enter {namespace}: {os.strerror(ctypes.get_errno())}')


def connect(lab, address, port, timeout=2):
    """A connection from the router's namespace, made by a short-lived thread so that we stay outside."""
    result = []

    def dial():
        try:
            enter(lab.namespace(lab.router))
            result.append(socket.create_connection((address, port), timeout=timeout))
        except (OSError, LabError) as error:
            result.append(error)

    thread = threading.Thread(target=dial)
    thread.start()
    thread.join()
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def listens(lab, address, port):
    """Whether something accepts a connection from the router there."""
    try:
        connect(lab, address, port).close()
        return True
    except OSError:
        return False


def http_ok(lab, address, port, path):
    """Whether GET answers 200."""
    try:
        with connect(lab, address, port) as connection:
            connection.sendall(f'GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n'.encode())
            return b' 200 ' in connection.recv(64)
    except OSError:
        return False
