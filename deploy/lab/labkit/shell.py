"""Running programs, writing files and waiting."""

import os
import subprocess
import time

from .model import LabError


def run(argv, check=True, **kwargs):
    """Run to the end with the output captured; a failure shows what the program said."""
    done = subprocess.run(argv, text=True, capture_output=True, check=False, **kwargs)
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done


def start(argv, log, env=None):
    """Start a program that outlives the lab command, its output appended to the file `log`."""
    with open(log, 'ab') as out:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                start_new_session=True, env=None if env is None else {**os.environ, **env})


def write(path, text):
    """Write a file as a whole: a reader, or a kill in the middle, never leaves or sees half of it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f'{path}.new', 'w', encoding='utf-8') as f:
        f.write(text)
    os.replace(f'{path}.new', path)


def read(path, default=''):
    """A file's text; `default` when the file, or the process it tells of, is gone."""
    try:
        with open(path, encoding='utf-8', errors='replace') as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return default


def wait_until(condition, what, seconds=60, pause=0.02):
    """Wait for `condition()` to be true. Generous: the machine may be busy compiling."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f'waited {seconds:g} s in vain for {what}')
        time.sleep(pause)


def tail(path, lines=12):
    return '\n'.join(read(path).splitlines()[-lines:])
