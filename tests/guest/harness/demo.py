"""What scripts/demo does once the program is built: guest, server, gdb, and everything ended again."""
import argparse
import json
import pathlib
import shutil
import signal
import subprocess
import sys

from . import cache, gdb, kernels, libvirtd, ports, processes, server
from .domain import Domain
from .errors import HarnessError
from .guest import Config

NAME = 'exogdb-demo'


def say(text: str):
    print(text, file=sys.stderr, flush=True)


def kept_file() -> pathlib.Path:
    return cache.root() / 'demo.json'


def show_gdb(remote: str, banner: str):
    """The session that the README shows; HarnessError when it does not show the guest's tasks."""
    commands = [f'target remote {remote}', 'info threads', f'x/s {banner}', 'thread 2', 'info registers rip rsp rax',
                'detach']
    for command in commands:
        say(f'  (gdb) {command}')
    output = gdb.batch(*commands)
    print(output, end='', flush=True)
    for name in ('kthreadd', 'init', 'Linux version'):
        if name not in output:
            raise HarnessError(f'gdb did not show {name!r} (see above)')


def keep(guest: Domain, serving: server.Server, remote: str):
    kept_file().write_text(json.dumps({
        'domain': guest.name, 'folders': [str(guest.folder), serving.folder], 'daemons': guest.release_daemons(),
        'server': {str(serving.process.pid): libvirtd.start_time(serving.process.pid)}}))
    print(f"\nStill running: libvirt domain {guest.name}, exogdb (pid {serving.process.pid}). Now type:\n"
          f"  gdb -ex 'target remote {remote}'\n"
          f'and when done:\n  scripts/demo --stop')


def stop_kept():
    if not kept_file().exists():
        raise HarnessError('nothing was left running by scripts/demo --keep')
    kept = json.loads(kept_file().read_text())
    libvirtd.stop(kept['server'])
    libvirtd.virsh('destroy', kept['domain'], check=False)
    libvirtd.stop(kept['daemons'])
    for folder in kept['folders']:
        shutil.rmtree(folder, ignore_errors=True)
    kept_file().unlink()


def run(suite: str, leave_running: bool):
    say(f'fetching the stock kernel of {suite}…')
    kernel = kernels.fetch(suite)
    guest = Domain(Config(kernel, scenario='threads', arguments=('exo.threads=4',)), NAME)
    port = ports.free(1234)
    remote = f':{port}'
    serving = None
    try:
        say(f'starting {kernel.release} as libvirt domain {NAME} (KASLR on, no debug package)…')
        guest.boot()
        say(f'exogdb serve {guest.target} --listen 127.0.0.1:{port}')
        serving = server.Server(guest.target, listen=f'127.0.0.1:{port}')
        serving.start()
        banner = server.run_json('info', guest.target)['linux_banner']
        show_gdb(remote, banner)
        if leave_running:
            keep(guest, serving, remote)
            guest = serving = None
    finally:
        # A second ^C must not stop the cleaning up half way.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if serving:
            serving.stop()
        if guest:
            guest.destroy()


def main():
    parser = argparse.ArgumentParser(prog='demo')
    parser.add_argument('--kernel', default='bookworm')
    parser.add_argument('--keep', action='store_true')
    parser.add_argument('--stop', action='store_true')
    options = parser.parse_args()
    processes.raise_on_signals()
    try:
        if options.stop:
            stop_kept()
        elif kept_file().exists():
            raise HarnessError('an earlier demo is still running: scripts/demo --stop')
        else:
            run(options.kernel, options.keep)
            say('done: the demo went through, and nothing of it is left' if not options.keep else 'done')
    except KeyboardInterrupt:
        sys.exit('demo: interrupted; cleaned up')
    except (HarnessError, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        sys.exit(f'demo: {str(error) or repr(error)}')


if __name__ == '__main__':
    main()
