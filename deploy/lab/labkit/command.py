"""The command line of the lab."""

import argparse
import json
import os
import re
import socket
import sys
import threading
import time

from . import (beats, cgroups, daemons, faults, fleet, guests, hypervisor, lifecycle, network, nodes, report,
               services)
from .model import PROMETHEUS_PORT, ROUTER_ADDRESS, Lab, LabError, Options

EPILOGUE = '''
faults:
  fault libvirtd|virtlockd|agent|scheduler|etcd|prometheus|qemu NAME kill|term|stop|cont|start|restart
      stop and cont are SIGSTOP and SIGCONT. NAME is a host, a scheduler, 1..3 for etcd (may be left
      out), a guest or HOST/GUEST for qemu.
  fault link NAME mgmt|migration|guests|all down|up|RATE|full      NAME is a host or scheduler, RATE 20mbit
  fault link NAME etcd down|up         NAME alone no longer reaches etcd, but everything else
  fault link etcd[-N] down|up          nobody reaches etcd
  fault part NAME OTHER down|up        two machines no longer reach each other
  fault host NAME off|on               power failure of a host or scheduler machine

The dials of a guest (guest set): l130 = work worth 130 thousandths of a core, w5000 = 5000 units a second,
c20 = spin 20 % of the time, d500 = dirty 500 pages a second, s2000 = of 2000 pages, r1 = with noise.
'''


def main(argv=None):
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(Lab(args.id), args) or 0
    except LabError as error:
        print(f'lab: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


def build_parser():
    parser = argparse.ArgumentParser(
        prog='lab', description='A fleet of libvirt hosts, etcd, Prometheus and Evenkeel on one machine.',
        epilog=EPILOGUE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--id', default=os.environ.get('LAB_ID', 'lab'),
                        help='labs with different ids live side by side (LAB_ID, default: lab)')
    verbs = parser.add_subparsers(metavar='VERB', required=True)
    add_life_verbs(verbs)
    add_run_verbs(verbs)
    add_guest_verbs(verbs)
    add_fault_verbs(verbs)
    return parser


def verb(verbs, name, run, help_text, *arguments):
    """One verb; an argument is a name, or a name and options of add_argument."""
    parser = verbs.add_parser(name, help=help_text)
    for argument in arguments:
        word, options = (argument, {}) if isinstance(argument, str) else argument
        parser.add_argument(word, **options)
    parser.set_defaults(run=run)
    return parser


def keepalive(text):
    if not re.fullmatch(r'[1-9]\d{0,3}x[1-9]\d{0,3}', text):
        raise argparse.ArgumentTypeError("write seconds and a count: 5x5")
    return text


REST = {'nargs': argparse.REMAINDER}
JSON = ('-o', {'choices': ('json',), 'dest': 'output', 'help': 'print JSON'})


# ---- up, down and what is there ----

def add_life_verbs(verbs):
    up = verb(verbs, 'up', run_up, 'start hosts, schedulers, etcd and Prometheus',
              ('hosts', {'type': int, 'nargs': '?', 'default': 3, 'metavar': 'N'}))
    up.add_argument('--cpu', type=int, default=50, metavar='PCT', help='quota of a host, percent of a core (0: none)')
    up.add_argument('--mem', type=int, default=512, metavar='MiB', help='memory a host says it has')
    up.add_argument('--etcd', type=int, default=1, choices=(1, 3), help='members')
    up.add_argument('--schedulers', type=int, default=3, metavar='N', choices=range(0, 8))
    up.add_argument('--keepalive', default='5x5', type=keepalive, metavar='SECONDSxCOUNT',
                    help='when libvirt gives up a silent peer')
    up.add_argument('--scrape', type=float, default=2, metavar='SECONDS', help="Prometheus' interval")
    up.add_argument('--no-prometheus', action='store_true')
    up.add_argument('--locks', action='store_true', help="libvirt's disk locks (lockd) on all hosts")
    up.add_argument('--bin', default='', metavar='DIR', help='where the Evenkeel binaries are (LAB_BIN)')
    up.add_argument('--daemons', action='store_true', help='fail if there are no binaries (default: do without)')
    up.add_argument('--no-daemons', action='store_true')
    up.add_argument('--agent-toml', action='append', default=[], metavar='FILE', help='drop-in for every agent')
    up.add_argument('--scheduler-toml', action='append', default=[], metavar='FILE')
    up.add_argument('--watchdog', type=int, default=0, metavar='PID', help='take the lab down when PID dies')
    verb(verbs, 'down', run_down, 'stop everything and leave nothing behind, also of a lab that was killed')
    verb(verbs, 'status', run_status, 'machines, processes and guests')
    verb(verbs, 'json', run_json, 'the same and more, for programs')
    verb(verbs, 'list', run_list, 'ids of all labs on this machine')
    verb(verbs, 'pressure', run_pressure, 'CPU pressure and use of the hosts, measured',
         ('--seconds', {'type': float, 'default': 5}), JSON)
    verb(verbs, 'watchdog', lambda lab, args: lifecycle.watch(lab, args.pid), argparse.SUPPRESS,
         ('pid', {'type': int}))


def run_up(lab, args):
    start = time.monotonic()
    binaries = '' if args.no_daemons else os.path.abspath(args.bin) if args.bin else daemons.default_binaries()
    if (args.daemons or args.bin) and not args.no_daemons:
        daemons.program_path(lab, 'evenkeel-agent', binaries)
        daemons.program_path(lab, 'evenkeel-scheduler', binaries)
    if not 1 <= args.hosts <= 99:
        raise LabError('a lab has 1 to 99 hosts')
    options = Options(hosts=args.hosts, schedulers=args.schedulers, cpu_percent=args.cpu, memory_mib=args.mem,
                      etcd_members=args.etcd, prometheus=not args.no_prometheus, scrape_seconds=args.scrape,
                      binaries=binaries, keepalive=args.keepalive, disk_locks=args.locks)
    drop_ins = [('agent', f) for f in args.agent_toml] + [('scheduler', f) for f in args.scheduler_toml]
    lifecycle.up(lab, options, drop_ins, args.watchdog)
    print(f"lab '{lab.id}' is up: {args.hosts} hosts in {time.monotonic() - start:.1f} s"
          f"{'' if binaries else ', without Evenkeel'}")


def run_down(lab, _args):
    start = time.monotonic()
    lifecycle.down(lab)
    print(f"lab '{lab.id}' is down in {time.monotonic() - start:.1f} s")


def run_status(lab, _args):
    for line in report.status_lines(lab):
        print(line)


def run_json(lab, _args):
    print_json(report.describe(lab))


def run_list(_lab, _args):
    for lab_id in report.labs_on_this_machine():
        print(lab_id)


def run_pressure(lab, args):
    measured = report.pressure(lab, args.seconds)
    if args.output:
        return print_json(measured)
    for name, value in measured.items():
        print(f"{name:<6} some stalled {value['stalled_percent']:5.1f} %   used {value['used_percent']:5.1f} %")
    return 0


def print_json(value):
    print(json.dumps(value, indent=1))


# ---- running things ----

def add_run_verbs(verbs):
    verb(verbs, 'exec', run_exec, 'run CMD as a part of a machine', 'machine', ('command', REST))
    verb(verbs, 'rt', run_on_router, 'run CMD on the router', ('command', REST))
    verb(verbs, 'virsh', run_virsh, "virsh on a host's libvirt", 'host', ('command', REST))
    verb(verbs, 'etcdctl', run_etcdctl, "etcdctl with the operator's certificate", ('command', REST))
    verb(verbs, 'evenkeel', run_evenkeel, "evenkeel with the operator's certificate", ('command', REST))
    verb(verbs, 'daemons', run_daemons, 'start or stop all agents and schedulers',
         ('action', {'choices': ('start', 'stop')}), ('--bin', {'default': ''}))
    verb(verbs, 'forward', run_forward, 'make a port of the router reachable on 127.0.0.1 (default: Prometheus)',
         ('--port', {'type': int, 'default': PROMETHEUS_PORT}), ('--local', {'type': int, 'default': 0}))
    verb(verbs, 'quota', run_quota, "change a host's CPU quota", 'host', ('percent', {'type': int}))
    verb(verbs, 'memlimit', run_memlimit, "limit a host's memory (0: not)", 'host', ('mib', {'type': int}))


def replace_process(argv):
    os.execvp(argv[0], argv)


def run_exec(lab, args):
    replace_process(nodes.inside(lab, lab.node(args.machine), args.command))


def run_on_router(lab, args):
    replace_process(nodes.inside(lab, lab.router, args.command, keep_directory=True))


def run_virsh(lab, args):
    replace_process(hypervisor.virsh_argv(lab, lab.host(args.host), args.command))


def run_etcdctl(lab, args):
    replace_process(nodes.inside(lab, lab.router, services.etcdctl_argv(lab, args.command), keep_directory=True))


def run_evenkeel(lab, args):
    program = daemons.program_path(lab, 'evenkeel')
    replace_process(nodes.inside(lab, lab.router, [program, '--config', daemons.client_config_path(lab),
                                                   *args.command], keep_directory=True))


def run_daemons(lab, args):
    if args.action == 'start':
        return lifecycle.start_daemons(lab, args.bin and os.path.abspath(args.bin))
    return daemons.stop_all(lab)


def run_forward(lab, args):
    """The listening socket stays in our namespace although the process moves to the router's."""
    listener = socket.create_server(('127.0.0.1', args.local or args.port))
    network.enter(lab.namespace(lab.router))
    print(f'127.0.0.1:{args.local or args.port} leads to {ROUTER_ADDRESS}:{args.port}; ctrl-C ends it', flush=True)
    while True:
        client, _ = listener.accept()
        try:
            server = socket.create_connection((ROUTER_ADDRESS, args.port), timeout=5)
            server.settimeout(None)
        except OSError:
            client.close()
            continue
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=pump, args=(source, target), daemon=True).start()


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def run_quota(lab, args):
    cgroups.set_cpu_quota(lab, lab.host(args.host).name, args.percent)


def run_memlimit(lab, args):
    cgroups.set_memory_limit(lab, lab.host(args.host).name, args.mib)


# ---- guests ----

def add_guest_verbs(verbs):
    guest = verbs.add_parser('guest', help='add, remove, load and look at guests').add_subparsers(required=True)
    add = guest.add_parser('add')
    guests.add_arguments(add)
    add.set_defaults(run=guests.add)
    verb(guest, 'rm', lambda lab, a: guests.remove(lab, a.name), 'remove it from all hosts', 'name')
    verb(guest, 'set', lambda lab, a: guests.set_dials(lab, a.name, ' '.join(a.dials)), 'turn its dials', 'name',
         ('dials', {'nargs': '+'}))
    verb(guest, 'list', run_guest_list, 'running guests and their hosts', JSON)
    verb(guest, 'log', run_guest_log, 'its last heartbeats', 'name', ('count', {'type': int, 'nargs': '?', 'default': 5}))
    verb(guest, 'work', run_guest_work, 'work it gets done per second', 'name',
         ('--seconds', {'type': float, 'default': 5}), JSON)
    verb(guest, 'where', run_guest_where, 'where it runs, by libvirt and by its heartbeat', 'name',
         ('--seconds', {'type': float, 'default': beats.ALIVE_SECONDS}), JSON)
    verb(guest, 'beats', run_guest_beats, 'all heartbeats of all hosts', 'name', JSON)
    verb(verbs, 'migrate', run_migrate, 'move a guest by hand, past Evenkeel', 'guest', 'target',
         ('flags', {'nargs': argparse.REMAINDER, 'help': "virsh's, instead of a plain live migration"}))
    verb(verbs, 'fleet', run_fleet, 'a ready-made fleet', ('kind', {'choices': ('demo',)}), JSON)


def run_guest_list(lab, args):
    rows = list(report.guest_rows(lab))
    if args.output:
        return print_json(rows)
    for row in rows:
        print(f"{row['guest']:<12} {row['host']}")
    return 0


def run_guest_log(lab, args):
    for beat in beats.merged(lab, args.name)[-args.count:]:
        print(' '.join(f'{key}={value}' for key, value in beat.items()))


def run_guest_work(lab, args):
    result = beats.work(lab, args.name, args.seconds)
    if args.output:
        return print_json(result)
    print(f"{args.name}: {result['work_per_second']} of {result['asked_per_second']} units/s on {result['host']}")
    return 0


def run_guest_where(lab, args):
    result = beats.where(lab, args.name, args.seconds)
    if args.output:
        return print_json(result)
    print(f"running on {' '.join(result['running_on']) or 'no host'}, "
          f"beating on {' '.join(result['beating_on']) or 'no host'}")
    return 0


def run_guest_beats(lab, args):
    every = beats.merged(lab, args.name)
    if args.output:
        return print_json({'guest': args.name, 'beats': every, 'counted_twice': beats.counted_twice(every)})
    for beat in every:
        print(' '.join(f'{key}={value}' for key, value in beat.items()))
    return 0


def run_migrate(lab, args):
    start = time.monotonic()
    done = guests.migrate(lab, args.guest, args.target, args.flags)
    print(f'exit code {done.returncode} after {time.monotonic() - start:.2f} s {(done.stdout + done.stderr).strip()}')
    return done.returncode


def run_fleet(lab, args):
    made = fleet.demo(lab)
    if args.output:
        return print_json(made)
    print(f"on {made['host']}, busy with {made['work_per_guest']} units/s each: {' '.join(made['busy'])}; "
          f"elsewhere, idle: {' '.join(made['idle'])}")
    return 0


# ---- faults ----

def add_fault_verbs(verbs):
    verb(verbs, 'fault', run_fault, 'break or mend something (see below)',
         ('kind', {'choices': (*faults.PROCESSES, 'link', 'part', 'host')}), ('words', {'nargs': '+'}),
         ('--on-line', {'action': 'store_true', 'help': "print 'ready', and do it once a line comes in: at once, then"}))


def run_fault(lab, args):
    words = args.words
    if args.kind in ('etcd', 'prometheus') and len(words) == 1:
        words = ['', *words]
    if args.kind == 'link' and len(words) == 2:
        words = [*words, '']
    handlers = {'link': (faults.link, 3), 'part': (faults.part, 3), 'host': (faults.machine, 2)}
    handler, count = handlers.get(args.kind, (lambda lab, *w: faults.process(lab, args.kind, *w), 2))
    if len(words) != count:
        raise LabError(f"'fault {args.kind}' takes {count} words; see lab --help")
    if args.on_line:
        print('ready', flush=True)
        sys.stdin.readline()
    return handler(lab, *words)
