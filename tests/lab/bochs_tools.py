"""Bochs 3.0 and what makes a disk for it."""
import pathlib

import unpacked

SUITE = 'trixie'
# 3.0: earlier ones lack the monitor trap flag, and with 3.1 the outer kernel crashes while it boots.
PACKAGES = ('bochs', 'bochsbios', 'vgabios', 'xorriso', 'isolinux', 'syslinux-common')


def root() -> pathlib.Path:
    """The folder that stands for /. 180 MB when unpacked."""
    return unpacked.fetch('bochs', SUITE, PACKAGES, 'bochs|syslinux')


def program(folder: pathlib.Path, name: str) -> list:
    return unpacked.program(folder, name)


def environment(folder: pathlib.Path) -> dict:
    return {'LTDL_LIBRARY_PATH': str(folder / 'usr/lib/x86_64-linux-gnu/bochs/plugins')}
