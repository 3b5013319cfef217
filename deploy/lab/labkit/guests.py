"""Guests: their definitions, adding and removing them, turning their load dials, moving them by hand."""

import argparse
import os
import re
import socket
import uuid

from . import hypervisor, nodes, services, shell
from .model import LAB_DIRECTORY, ROUTER_ADDRESS, LabError

DIAL_PATIENCE = 3      # seconds for a guest to confirm a command; it reads 100 times a second unless starved
DIAL_TRIES = 5
PLAIN_MIGRATION = ('--live', '--p2p', '--persistent', '--undefinesource')


def kernel_path(lab):
    return lab.path('guest', 'tiny.elf')


def build_kernel(lab):
    os.makedirs(lab.path('guest'), exist_ok=True)
    shell.run([os.path.join(LAB_DIRECTORY, 'guest', 'build'), lab.path('guest')])


def add_arguments(parser: argparse.ArgumentParser):
    """The options of `guest add`, which are also those of `definition`."""
    parser.add_argument('host')
    parser.add_argument('name')
    parser.add_argument('--mem', type=int, default=32, metavar='MiB')
    parser.add_argument('--vcpu', type=int, default=1, metavar='N')
    parser.add_argument('--disk', choices=('nbd', 'local', 'shared'),
                        help='nbd: served by the router to all hosts; local: on this host; '
                             'shared: a directory all hosts have, which libvirt thinks is local')
    parser.add_argument('--size', type=int, default=64, metavar='MiB', help="the disk's size")
    parser.add_argument('--lease', action='store_true',
                        help='it runs only while its host holds a lease of its name (lab up --locks)')
    parser.add_argument('--net', action='store_true', help='a network card on the guest network')
    parser.add_argument('--machine', default='pc')
    parser.add_argument('--metadata', default='', metavar='XML', help="goes into the definition's <metadata>")
    parser.add_argument('--transient', action='store_true')
    parser.add_argument('--no-start', action='store_true')
    parser.add_argument('--dials', default='', metavar='DIALS', help="as for `guest set`, once it is up")


def parse(words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def guest_uuid(lab, name):
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}.guest.{lab.id}.evenkeel.test'))


def definition(lab, spec):
    """Domain XML. Emulated (TCG), so that it runs anywhere; the CPU model is one that every host has."""
    metadata = f'<metadata>{spec.metadata}</metadata>' if spec.metadata else ''
    network = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/><rom enabled='no'/></interface>"
    return f"""<domain type='qemu'>
  <name>{spec.name}</name>
  <uuid>{guest_uuid(lab, spec.name)}</uuid>
  {metadata}
  <memory unit='MiB'>{spec.mem}</memory>
  <vcpu>{spec.vcpu}</vcpu>
  <os><type arch='x86_64' machine='{spec.machine}'>hvm</type><kernel>{kernel_path(lab)}</kernel></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <clock offset='utc'/>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='unix'>
      <source mode='bind' path='/var/lib/libvirt/qemu/{spec.name}.sock'/>
      <log file='/var/log/libvirt/qemu/{spec.name}.serial' append='on'/>
      <target port='0'/>
    </serial>
    {network if spec.net else ''}
    {_disk(lab, spec)}
    {_lease(spec) if spec.lease else ''}
  </devices>
</domain>
"""


def _disk(lab, spec):
    target = "<target dev='vda' bus='virtio'/>"
    if spec.disk == 'nbd':
        port = services.export_disk(lab, spec.name, spec.size)
        return (f"<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>"
                f"<source protocol='nbd' name='{spec.name}'><host name='{ROUTER_ADDRESS}' port='{port}'/></source>"
                f'{target}</disk>')
    if spec.disk:
        return (f"<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>"
                f"<source file='/srv/{spec.disk}/{spec.name}.qcow2'/>{target}</disk>")
    return ''


def _lease_path(lab, name):
    return os.path.join(lab.path('shared'), os.path.basename(hypervisor.LOCKSPACE), name)


def _lease(spec):
    parent, lockspace = os.path.split(hypervisor.LOCKSPACE)
    return f"<lease><lockspace>{lockspace}</lockspace><key>{spec.name}</key><target path='{parent}'/></lease>"


def _make_disk_image(lab, host, spec):
    directory = lab.path('shared') if spec.disk == 'shared' else os.path.join(nodes.directory(lab, host), 'local')
    image = os.path.join(directory, f'{spec.name}.qcow2')
    if not os.path.exists(image):
        shell.run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, f'{spec.size}M'])


def add(lab, spec):
    host = lab.host(spec.host)
    if spec.disk in ('shared', 'local'):
        _make_disk_image(lab, host, spec)
    if spec.lease:
        with open(_lease_path(lab, spec.name), 'a', encoding='utf-8'):
            pass    # libvirt does not make it; one that is there may be locked, and stays
    xml = lab.path('guest', f'{spec.name}.xml')
    shell.write(xml, definition(lab, spec))
    if spec.transient:
        hypervisor.virsh(lab, host, ['create', xml])
    else:
        hypervisor.virsh(lab, host, ['define', xml])
        if not spec.no_start:
            hypervisor.virsh(lab, host, ['start', spec.name])
    if spec.dials:
        set_dials(lab, spec.name, spec.dials)


def remove(lab, name):
    """From every host that has it, running or not."""
    found = False
    for host in lab.hosts:
        if hypervisor.pids(lab, host) and hypervisor.virsh(lab, host, ['domstate', name], check=False).returncode == 0:
            found = True
            hypervisor.virsh(lab, host, ['destroy', name], check=False)
            hypervisor.virsh(lab, host, ['undefine', name], check=False)
    if not found:
        raise LabError(f"no guest '{name}' on any host")
    disk = services.directory(lab, 'disks', f'{name}.raw')
    nodes.send(nodes.find(lab, lab.router, 'qemu-nbd', disk), 'term')
    for path in (disk, f'{disk}.port', _lease_path(lab, name)):
        if os.path.exists(path):
            os.remove(path)


def qemu_pids(lab, host, name):
    return nodes.find(lab, host, 'qemu-system-x86_64', f'guest={name},')


def split_name(lab, name):
    """'h1/web' is the guest on that host; 'web' is the guest wherever it is."""
    host, slash, guest = name.rpartition('/')
    return ([lab.host(host)] if slash else lab.hosts), guest


def running_on(lab, name):
    """The hosts on which libvirt calls the guest running."""
    hosts, guest = split_name(lab, name)
    return [host for host in hosts if guest in running_guests(lab, host)]


def running_guests(lab, host):
    """What libvirt calls running there. Asked twice: on a busy machine no answer is not yet an answer."""
    for _ in range(2):
        running = hypervisor.running_guests(lab, host)
        if running is not None:
            return running
    return []


def one_host_of(lab, name):
    """The only host where the guest runs. Asks libvirt only if its qemu processes leave a doubt."""
    hosts, guest = split_name(lab, name)
    having = [host for host in hosts if qemu_pids(lab, host, guest)]
    if len(having) != 1:
        having = running_on(lab, name)
    if len(having) != 1:
        raise LabError(f"guest '{name}' runs on {', '.join(h.name for h in having) or 'no host'}")
    return having[0]


def set_dials(lab, name, dials):
    """Type commands such as 'l150 d20' into the guest's serial port, each until the guest confirms it."""
    host, guest = one_host_of(lab, name), name.rpartition('/')[2]
    directory = os.open(os.path.join(nodes.directory(lab, host), 'lib', 'qemu'), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as port:
            # by way of the directory: a socket's path may not be longer than 107 characters
            port.connect(f'/proc/self/fd/{directory}/{guest}.sock')
            port.settimeout(DIAL_PATIENCE)
            for word in dials.split():
                _turn_dial(port, name, word)
    except OSError as error:
        raise LabError(f'{name} on {host.name}: {error}') from error
    finally:
        os.close(directory)


def _turn_dial(port, name, word):
    """A starved guest may be slow to read, and drops what does not fit its 16 bytes: say it again."""
    if not re.fullmatch(r'[lwcdsrpx]\d*', word):
        raise LabError(f"no dial '{word}'; see the end of lab --help")
    confirmation = f'DIAL {word[0]}{int(word[1:] or 0)}\r'
    heard = ''
    for _ in range(DIAL_TRIES):
        port.sendall(f'\n{word}\n'.encode())
        while word != 'x':
            try:
                heard += port.recv(4096).decode('ascii', 'replace')
            except TimeoutError:
                break
            if confirmation in heard:
                return
        if word == 'x':
            return
    raise LabError(f'{name} does not read its serial port')


def migrate(lab, name, target, flags=()):
    source = one_host_of(lab, name)
    return hypervisor.migrate(lab, name.rpartition('/')[2], source, lab.host(target), flags or PLAIN_MIGRATION)
