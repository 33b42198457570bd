"""Stock Debian's Xen: the hypervisor and dom0's programs, unpacked in the cache."""
import gzip
import pathlib
import re
import subprocess

import unpacked
from harness import apt
from harness.errors import HarnessError, MissingPrerequisite

VERSION = '4.17'  # interfaces of the hypervisor and of libxenctrl change with it
PACKAGES = (f'xen-hypervisor-{VERSION}-amd64', f'xen-utils-{VERSION}', 'xen-utils-common', 'xenstore-utils')
FOLDER = f'usr/lib/xen-{VERSION}/bin'
PROGRAMS = ('xl', 'xenstored', 'xenconsoled', 'xen-init-dom0', 'xen-access', 'xen-hvmctx')
LIBRARIES = ('lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu')


def root() -> pathlib.Path:
    """The folder that stands for /."""
    if apt.own_codename() != 'bookworm':
        raise MissingPrerequisite(f"Debian 12: exogdb's libxenctrl must be of the hypervisor's version, {VERSION}")
    return unpacked.fetch('xen', 'bookworm', PACKAGES, 'xen')


def hypervisor() -> bytes:
    """The ELF file."""
    return gzip.decompress((root() / f'boot/xen-{VERSION}-amd64.gz').read_bytes())


def dom0_files() -> dict:
    """{name below the root: content} of the programs and of their libraries."""
    folder = root()
    programs = [folder / FOLDER / name for name in PROGRAMS] + [folder / 'usr/bin/xenstore']
    done = {str(path.relative_to(folder)): path.read_bytes() for path in programs}
    search = ':'.join(str(folder / name) for name in LIBRARIES)
    loader = folder / 'lib64/ld-linux-x86-64.so.2'
    for path in programs:
        listing = subprocess.run([loader, '--library-path', search, '--list', path], capture_output=True, text=True, check=False)
        if listing.returncode or 'not found' in listing.stdout:
            raise HarnessError(f'{path}: {(listing.stdout + listing.stderr).strip()[-300:]}')
        for found in re.findall(r'=> (/\S+) \(0x', listing.stdout):
            found = pathlib.Path(found)
            done[str(found.relative_to(folder))] = found.read_bytes()
    done['lib64/ld-linux-x86-64.so.2'] = loader.read_bytes()
    # The C library loads it when a thread ends by pthread_cancel, as xl's do.
    done['lib/x86_64-linux-gnu/libgcc_s.so.1'] = (folder / 'lib/x86_64-linux-gnu/libgcc_s.so.1').read_bytes()
    return done
