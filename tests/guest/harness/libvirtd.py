"""libvirt's daemons: used when they run, started by us where nothing else would.

    python3 -m harness.libvirtd start FILE     notes in FILE what it started, if anything
    python3 -m harness.libvirtd stop FILE      ends exactly that
"""
import grp
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from . import cache
from .errors import HarnessError, MissingPrerequisite

URI = 'qemu:///system'
LIMIT = 240  # seconds; the first domain after a change of QEMU waits for libvirt to ask it for all it can do
DAEMONS = ('virtlogd', 'libvirtd')
KVM = '/dev/kvm'


def virsh(*words, check: bool = True) -> str:
    path = shutil.which('virsh')
    if not path:
        raise MissingPrerequisite('virsh (package libvirt-clients)')
    try:
        result = subprocess.run([path, '--quiet', '--connect', URI, *words], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=LIMIT, check=False,
                                env={**os.environ, 'LC_ALL': 'C'})
    except subprocess.TimeoutExpired:
        raise HarnessError(f'virsh {words[0]}: no answer in {LIMIT} s') from None
    if check and result.returncode:
        reason = ' '.join(line.removeprefix('error: ').strip() for line in result.stderr.splitlines())
        raise HarnessError(f'virsh {words[0]}: {reason}')
    return result.stdout


def answers() -> bool:
    try:
        virsh('version')
        return True
    except MissingPrerequisite:
        raise
    except HarnessError:
        return False


def _start_by_service_manager() -> bool:
    if not os.path.isdir('/run/systemd/system'):
        return False
    return subprocess.run(['systemctl', 'start', 'libvirtd'], stdin=subprocess.DEVNULL, capture_output=True,
                          check=False).returncode == 0


def start_time(pid: int):
    """With the pid this names one process for good (proc(5), field 22); None when it is gone."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[19]
    except OSError:
        return None


def ensure() -> dict:
    """Makes libvirt answer. {pid: start time} of the daemons that this call started."""
    with cache.lock('libvirtd'):
        if answers() or (_start_by_service_manager() and answers()):
            return {}
        if os.geteuid():
            raise MissingPrerequisite('a running libvirtd (not root, so it cannot be started here)')
        started = {}
        _grant_kvm()
        try:
            for name in DAEMONS:
                _start_daemon(name, started)
            until = time.monotonic() + 60
            while not answers():
                if time.monotonic() > until:
                    raise HarnessError('libvirtd was started but does not answer after 60 s')
                time.sleep(0.3)
        except BaseException:
            stop(started)
            raise
        return started


def _grant_kvm():
    """What udev does elsewhere (50-udev-default.rules). libvirt's QEMU is of that group. If it cannot open the device,
    libvirt 9.0 asks QEMU anew for all it can do with every domain, since it asks as root and looks as QEMU's user
    (virQEMUCapsIsValid): seconds each, minutes on a busy machine."""
    try:
        group, status = grp.getgrnam('kvm').gr_gid, os.stat(KVM)
        if status.st_mode & 0o006 == 0o006 or (status.st_gid == group and status.st_mode & 0o060 == 0o060):
            return
        os.chown(KVM, 0, group)
        os.chmod(KVM, 0o660)
    except (KeyError, OSError):
        pass  # no such group, no such device: libvirt is slow, or does without


def _start_daemon(name: str, started: dict):
    path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
    if not path:
        raise MissingPrerequisite(f'{name} (package libvirt-daemon-system)')
    log = cache.root() / f'{name}.log'
    package = pathlib.Path(__file__).parent
    words = [sys.executable, '-m', f'{package.name}.reaper', path]
    with open(log, 'wb') as output:
        process = subprocess.Popen(words, cwd=package.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True)
    time.sleep(0.5)
    if process.poll() is None:
        started[str(process.pid)] = start_time(process.pid)
    elif 'already' not in (text := log.read_text(errors='replace')) and 'pid file' not in text.lower():
        raise HarnessError(f'{name} ended with {process.returncode}: {text.strip()[-300:]}')


def restart():
    """As an upgrade of its package does it: domains run on."""
    before = _pid()
    if _start_by_service_manager():
        subprocess.run(['systemctl', 'restart', 'libvirtd'], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    elif b'harness.reaper' in pathlib.Path(f'/proc/{_parent(before)}/cmdline').read_bytes():
        os.kill(_parent(before), signal.SIGUSR1)
    else:
        raise MissingPrerequisite('a libvirtd that may be restarted')
    until = time.monotonic() + 60
    while _pid() in (before, None) or not answers():
        if time.monotonic() > until:
            raise HarnessError('libvirtd was restarted but does not answer after 60 s')
        time.sleep(0.3)


def _pid():
    try:
        return int(pathlib.Path('/run/libvirtd.pid').read_text())
    except (OSError, ValueError):
        return None


def _parent(pid: int) -> int:
    return int(pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[1])


def stop(started: dict):
    for pid, since in reversed(list(started.items())):
        if since is None or start_time(int(pid)) != since:
            continue
        os.kill(int(pid), signal.SIGTERM)
        until = time.monotonic() + 10
        while start_time(int(pid)) == since and time.monotonic() < until:
            try:
                os.waitpid(int(pid), os.WNOHANG)
            except ChildProcessError:
                pass
            time.sleep(0.1)


def main():
    action, file = sys.argv[1], pathlib.Path(sys.argv[2])
    try:
        # Runs in a process of its own, so the domains' module may import this one.
        from .domain import destroy_abandoned
        if action == 'start':
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(ensure()))
            destroy_abandoned()
        elif file.exists():
            destroy_abandoned()
            stop(json.loads(file.read_text()))
            file.unlink()
    except MissingPrerequisite as error:
        print(f'skipped, the machine lacks: {error}')
        sys.exit(77)
    except HarnessError as error:
        sys.exit(f'libvirtd: {error}')


if __name__ == '__main__':
    main()
