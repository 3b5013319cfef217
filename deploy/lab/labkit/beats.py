"""Reading the guests' heartbeats: is a guest alive, where, how much work it does, did it run twice.

A guest writes a line a second into a log of the host it runs on. The count in it goes on over
migrations, so the logs of all hosts together tell what really happened, whatever libvirt says.
"""

import os
import re
import time

from . import guests, nodes, shell

ALIVE_SECONDS = 4      # a guest on an overloaded host may be late with its line


def log_path(lab, host, name):
    return os.path.join(nodes.directory(lab, host), 'log', 'qemu', f'{name}.serial')


def parse(line):
    """A whole heartbeat as numbers; None if it is anything else."""
    words = line.split()
    if words[:1] != ['BEAT']:
        return None
    try:
        fields = {key: int(value) for key, value in (word.split('=') for word in words[1:])}
    except ValueError:
        return None
    return fields if {'n', 'ms', 'clock', 'work', 'done', 'pages'} <= fields.keys() else None


def read_log(text):
    """Whole heartbeats; then the beginnings and the ends of lines that a hand-over (or a crash) has cut.

    A guest may be handed over in the middle of a line. The rest of it, if only its end of line, is then in the
    other host's log; and what it prints first when it comes back stands right behind the stump that it left.
    """
    beats, stumps, rests = [], [], []
    for piece in re.split('(?=BEAT )', text):
        line, ended, others = piece.partition('\n')
        beat = parse(line) if ended else None
        if beat:
            beats.append(beat)
        elif ended:
            rests.append(line)
        *whole, last = others.split('\n') if ended else [line]
        rests += whole
        stumps.append(last)
    return beats, list(filter(None, stumps)), list(filter(None, rests))


def of_host(lab, host, name):
    """All heartbeats of the guest on that host, in order, as dictionaries of numbers and the host."""
    return [{'host': host.name, **beat} for beat in read_log(shell.read(log_path(lab, host, name)))[0]]


def joined(logs):
    """Heartbeats that were begun on one host and ended on another, as the latter's; or that lack only an end of line."""
    for source, (_, stumps, _) in logs.items():
        rests = [(source, ''), *((host, rest) for host, (_, _, its) in logs.items() if host != source for rest in its)]
        whole = ((host, parse(stump + rest)) for stump in stumps for host, rest in rests)
        yield from ({'host': host, **beat} for host, beat in whole if beat)


def merged(lab, name):
    """The heartbeats of all hosts in the order of the wall clock."""
    logs = {host.name: read_log(shell.read(log_path(lab, host, name))) for host in lab.hosts}
    every = [{'host': host, **beat} for host, (beats, _, _) in logs.items() for beat in beats]
    heard = {beat['n'] for beat in every}
    every += [beat for beat in joined(logs) if beat['n'] not in heard]
    return sorted(every, key=lambda beat: (beat['clock'], beat['n']))


def since_boot(beats):
    """Those after the last boot of the guest (its count starts again at 0)."""
    starts = [i for i, beat in enumerate(beats) if beat['n'] == 0]
    return beats[starts[-1]:] if starts else beats


def counted_twice(beats):
    """Counts that more than one host has seen: the guest ran twice."""
    hosts_of = {}
    for beat in since_boot(beats):
        hosts_of.setdefault(beat['n'], set()).add(beat['host'])
    return sorted(n for n, hosts in hosts_of.items() if len(hosts) > 1)


def beating_on(lab, name, seconds=ALIVE_SECONDS):
    """Hosts on which the guest's heart has beaten in the last seconds."""
    hosts, guest = guests.split_name(lab, name)
    now = time.time()
    alive = []
    for host in hosts:
        beats = of_host(lab, host, guest)
        # the clock shows whole seconds
        if beats and beats[-1]['clock'] >= int(now - seconds):
            alive.append(host)
    return alive


def where(lab, name, seconds=ALIVE_SECONDS):
    return {'guest': name,
            'running_on': [h.name for h in guests.running_on(lab, name)],
            'beating_on': [h.name for h in beating_on(lab, name, seconds)]}


def work_rate(beats, seconds):
    """Units of work per second over about the last seconds; None if there are too few heartbeats.

    By the guest's own clock, which has milliseconds and goes on while the guest is starved.
    """
    beats = since_boot(beats)
    window = [beat for beat in beats if beat['ms'] >= beats[-1]['ms'] - seconds * 1000]
    if len(window) < 2:
        return None
    first, last = window[0], window[-1]
    return ((last['done'] - first['done']) % 2**32) * 1000 / (last['ms'] - first['ms'])


def work(lab, name, seconds):
    beats = merged(lab, name)
    rate = work_rate(beats, seconds)
    last = beats[-1] if beats else {}
    return {'guest': name, 'work_per_second': None if rate is None else round(rate, 1),
            'asked_per_second': last.get('work'), 'host': last.get('host'), 'beats': last.get('n')}


def names(lab):
    """Every guest that has ever been added to this lab."""
    directory = lab.path('guest')
    return sorted(f[:-4] for f in os.listdir(directory) if f.endswith('.xml'))
