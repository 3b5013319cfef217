"""libvirt on the hosts: its configuration, starting it, and talking to it from the router."""

import os
import shutil
import uuid

from . import nodes, shell
from .model import LabError

# A connection that went silent is given up after 5 s x 5 (libvirt's own default) unless the lab says otherwise.
LIBVIRTD_CONF = '''listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
keepalive_interval = {seconds}
keepalive_count = {count}
'''

# Control groups and confinement are left alone: the lab has put the whole host into a group already.
QEMU_CONF = '''stdio_handler = "file"
cgroup_controllers = [ ]
security_driver = "none"
user = "root"
group = "root"
namespaces = [ ]
remember_owner = 0
keepalive_interval = {seconds}
keepalive_count = {count}
migration_address = "{migration}"
migration_host = "{migration}"
migrate_tls_x509_cert_dir = "{certificates}"
migrate_tls_x509_verify = 1
'''

# A directory that all hosts see, with a file for each disk and each lease. The hosts share one kernel, so a lock
# on such a file holds for all of them, as on a shared file system.
LOCKSPACE = '/srv/shared/locks'
DISK_LOCKS = '''lock_manager = "lockd"
'''
LOCKD_CONF = f'''file_lockspace_dir = "{LOCKSPACE}"
'''

# The directory of the hosts' local disks, as libvirt has to know it in order to make files there.
LOCAL_POOL = '''<pool type='dir'><name>local</name><target><path>/srv/local</path></target></pool>
'''


def host_uuid(lab, host):
    """The same for every lab of that id: a host keeps its identity over `down` and `up`."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f'{host.name}.{lab.id}.evenkeel.test'))


def prepare(lab, host):
    path = nodes.directory(lab, host)
    for directory in ('lib/qemu', 'log/qemu', 'cache', 'local', 'agent'):
        os.makedirs(f'{path}/{directory}', exist_ok=True)
    seconds, count = lab.options.keepalive.split('x')
    shell.write(f'{path}/etc/libvirtd.conf', LIBVIRTD_CONF.format(
        address=host.address, uuid=host_uuid(lab, host), seconds=seconds, count=count))
    locks = DISK_LOCKS if lab.options.disk_locks else ''
    shell.write(f'{path}/etc/qemu-lockd.conf', LOCKD_CONF)
    shell.write(f'{path}/etc/qemu.conf', QEMU_CONF.format(
        migration=host.migration_address, certificates=tls_directory(lab, host), seconds=seconds, count=count) + locks)
    shell.write(f'{path}/etc/storage/local.xml', LOCAL_POOL)
    os.makedirs(f'{path}/etc/storage/autostart', exist_ok=True)
    link = f'{path}/etc/storage/autostart/local.xml'
    if not os.path.lexists(link):
        os.symlink('/etc/libvirt/storage/local.xml', link)
    kib = lab.options.memory_mib * 1024
    shell.write(f'{path}/meminfo', ''.join(f'{name + ":":<16}{value:8d} kB\n' for name, value in (
        ('MemTotal', kib), ('MemFree', kib), ('MemAvailable', kib), ('Buffers', 0), ('Cached', 0),
        ('SwapTotal', 0), ('SwapFree', 0))))


def tls_directory(lab, host):
    return os.path.join(nodes.directory(lab, host), 'qemu-tls')


def give_certificates(lab, host, authority='ca'):
    """The host's own certificate under the names that QEMU looks for, for encrypted migrations."""
    directory, certificates = tls_directory(lab, host), lab.path('certs')
    os.makedirs(directory, exist_ok=True)
    shutil.copy(f'{certificates}/{authority}.pem', f'{directory}/ca-cert.pem')
    for side in ('server', 'client'):
        shutil.copy(f'{certificates}/agent-{host.name}.pem', f'{directory}/{side}-cert.pem')
        shutil.copy(f'{certificates}/agent-{host.name}.key', f'{directory}/{side}-key.pem')


def start(lab, host):
    if lab.options.disk_locks and not lock_pids(lab, host):
        start_locks(lab, host)
    # libvirtd takes a while to give up its socket; -d returns when it is up
    argv = nodes.inside(lab, host, ['libvirtd', '-d', '--listen', '-f', '/etc/libvirt/libvirtd.conf'])
    shell.run(argv)


def pids(lab, host):
    return nodes.find(lab, host, 'libvirtd')


def start_locks(lab, host):
    """Before libvirtd, which does not start it: without it no guest starts."""
    if not lab.options.disk_locks:
        raise LabError('this lab has no disk locks: lab up --locks')
    shell.run(nodes.inside(lab, host, ['virtlockd', '-d']))


def lock_pids(lab, host):
    return nodes.find(lab, host, 'virtlockd')


def uri(host):
    return f'qemu+tcp://{host.address}/system'


def virsh_argv(lab, host, args):
    return ['ip', 'netns', 'exec', lab.namespace(lab.router), 'virsh', '-q', '-c', uri(host), *args]


def virsh(lab, host, args, check=True, timeout=60):
    return shell.run(virsh_argv(lab, host, args), check=check, timeout=timeout)


def wait_ready(lab, host):
    shell.wait_until(lambda: virsh(lab, host, ['uri'], check=False).returncode == 0,
                     f"{host.name}'s libvirtd to answer", pause=0.05)


def running_guests(lab, host):
    """Names of the guests that libvirt calls running; None when libvirt does not answer."""
    if not nodes.is_on(lab, host) or not pids(lab, host):
        return None
    try:
        answer = virsh(lab, host, ['list', '--state-running', '--name'], check=False, timeout=10)
    except (OSError, TimeoutError, shell.subprocess.TimeoutExpired):
        return None
    return answer.stdout.split() if answer.returncode == 0 else None


def migrate(lab, guest, source, target, flags):
    """A migration by hand, past Evenkeel, with virsh's flags."""
    if source == target:
        raise LabError(f'{guest} is on {source.name} already')
    return shell.run(virsh_argv(lab, source, ['migrate', *flags, guest, uri(target),
                                              f'tcp://{target.migration_address}']), check=False)
