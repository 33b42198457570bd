#!/usr/bin/env python3
"""How far gdb with exogdb's symbol file agrees with gdb with the real vmlinux of the kernel's debug package.

    python3 measure.py [SUITE…]      the figures of docs/symbols.md; --json FILE keeps both looks

One gdb, one stop of one guest: it looks with the file that the server gives it, then with the vmlinux moved by the
slide. Debug packages are fetched into the cache (0.5 GB each). Run by hand: gdb alone needs a minute for a vmlinux."""
import argparse
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'guest')]
sys.dont_write_bytecode = True

import cfi
import compare
import debug_kernels
import structures
from harness import gdb, kernels, server, vm
from harness.errors import HarnessError
from harness.guest import Config

LIMIT = float(os.environ.get('EXOGDB_AGREEMENT_LIMIT', '3000'))  # seconds for one gdb

# Where the guest is stopped beside the first stop: in an interrupt, in a softirq, in the scheduler.
PLACES = (('hrtimer_interrupt',), ('handle_softirqs', '__do_softirq'), ('try_to_wake_up',), ('schedule',))

SCRIPT = '''
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {here!r})
import in_gdb
made = gdb.objfiles()[0].filename
places = [next((a for a in map(in_gdb.address, names) if a), 0) for names in {places!r}]
result = {{'stops': []}}
for place in [0, *filter(None, places)]:
    if place and not in_gdb.go_to(place):
        continue
    ours = in_gdb.stacks()
    gdb.execute('file')
    gdb.execute('symbol-file -o {slide:#x} {vmlinux}')
    theirs = in_gdb.stacks()
    result['stops'].append({{'ours': ours, 'theirs': theirs, 'addresses': in_gdb.addresses(ours, theirs)}})
    gdb.execute('file')
    gdb.execute('symbol-file -o {slide:#x} ' + made)
'''


def in_gdb(remote: str, source: str):
    """As harness.gdb.evaluate; but a gdb that reads a vmlinux on a busy host lets a server wait, and is waited for."""
    with tempfile.TemporaryDirectory(prefix='exogdb-agreement-') as folder:
        script, answer = pathlib.Path(folder, 'script.py'), pathlib.Path(folder, 'answer.json')
        script.write_text(f'import gdb, json\n{source}\njson.dump(result, open({str(answer)!r}, "w"))\n')
        output = gdb.batch('set remotetimeout 600', f'target remote {remote}', f'source {script}', limit=LIMIT,
                           check=False)
        if not answer.exists():
            raise HarnessError(f'the script in gdb failed: {output[-2000:]}')
        return json.loads(answer.read_text())


def measure(suite: str) -> dict:
    kernel = kernels.fetch(suite)
    vmlinux = debug_kernels.fetch(kernel)
    with vm.Vm(Config(kernel, scenario='threads', memory_mib=1024)) as guest:
        slide = int(server.run_json('info', guest.target, limit=LIMIT)['slide'], 16)
        made = guest.folder / 'symbols'
        server.run('symbols', guest.target, '-o', str(made), limit=LIMIT)
        with server.Server(guest.target, limit=LIMIT) as serving:
            source = SCRIPT.format(here=str(HERE), slide=slide, vmlinux=vmlinux, places=PLACES)
            looks = in_gdb(serving.socket, source)
        files = {'rules': cfi.compare(str(made), str(vmlinux)),
                 'structures': structures.compare(str(made), str(vmlinux))}
    return {'suite': suite, 'release': kernel.release, 'slide': slide, **files, **looks}


def show(looks: dict):
    stacks = compare.frames(looks['stops'])
    percent = 100 * stacks['agreed'] / max(1, stacks['compared'])
    print(f"{looks['release']}: {stacks['stops']} stops, {stacks['threads']} stacks, {stacks['compared']} frames, "
          f"{stacks['agreed']} agree: {percent:.2f} % ({stacks['labels']} by a label inside the function)")
    for text, count in stacks['differing'].items():
        print(f'    differs {count} × {text}')
    for text, count in stacks['beyond'].items():
        print(f'    ours only {count} × {text}')
    cfi.show(looks['rules'])
    structures.show(looks['structures'])


def main():
    parser = argparse.ArgumentParser(description='agreement with the real vmlinux')
    parser.add_argument('--json', help='FILE for both looks of each kernel; SUITE is put before its name')
    parser.add_argument('--again', nargs='*', default=(), help='FILEs of --json to compare anew, without a guest')
    parser.add_argument('suites', nargs='*', default=())
    options = parser.parse_args()
    for path in options.again:
        show(json.loads(pathlib.Path(path).read_text()))
    failed = False
    for suite in options.suites or ([] if options.again else kernels.SUITES):
        try:
            looks = measure(suite)
        except HarnessError as error:
            print(f'{suite}: {error}', flush=True)
            failed = True
            continue
        if options.json:
            path = pathlib.Path(options.json)
            path.with_name(f'{suite}-{path.name}').write_text(json.dumps(looks))
        show(looks)
    sys.exit(failed)


if __name__ == '__main__':
    main()
