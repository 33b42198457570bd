"""Stacks of one gdb at one stopped guest: where they agree, and every kind of disagreement.

The real vmlinux is what is compared against, as far as it knows: assembly has no call frame information there
(its macros are empty where the kernel has ORC), so what gdb says outside of an assembly function's frame is a guess."""
import collections
import re

MARKS = {'user_mode', 'interrupted_kernel', 'stack_switch'}  # os-awareness/linux/orc_frames.h


def plain(name: str) -> str:
    """A compiler's copy of a function has a name of its own in kallsyms, and the function's in DWARF."""
    return re.sub(r'\.(isra|constprop|part|cold|llvm)\b.*', '', name)


def is_label(name: str, function: str, pc: int, addresses: dict) -> bool:
    """A name inside an assembly function, or another of the same place: gdb prefers what has a size."""
    return name in addresses and function in addresses and addresses[function] <= addresses[name] <= pc


class Stacks:
    def __init__(self, addresses: dict):
        self.total = collections.Counter(threads=0, compared=0, agreed=0, labels=0)
        self.differing, self.beyond = collections.Counter(), collections.Counter()
        self._addresses = addresses

    def add(self, ours: list, theirs: list, why: str):
        """`why`: gdb's word for the end of theirs."""
        ours = [frame for frame in ours if frame[1] not in MARKS]
        self.total['threads'] += 1
        for level, (pc, name, _) in enumerate(theirs):
            if level and theirs[level - 1][2]:
                self.beyond[f'callers of {theirs[level - 1][1]}'] += len(ours) > level
                return
            self.total['compared'] += 1
            if level >= len(ours) or ours[level][0] != pc:
                inner = theirs[level - 1][1] if level else 'no frame'
                shown = f'{ours[level][1]} ({ours[level][0]:#x})' if level < len(ours) else 'nothing'
                self.differing[f'caller of {inner}: {shown} is {name or "??"} ({pc:#x})'] += 1
                return
            self._compare_names(ours[level][1], name, pc)
        if len(ours) > len(theirs):
            last = theirs[-1] if theirs else [0, 'nothing', True]
            gave_up = why not in ('no reason', 'outermost')
            where = self.beyond if last[2] or gave_up else self.differing
            where[f'callers of {last[1]}' + (f' (theirs: {why})' if gave_up else '')] += 1

    def _compare_names(self, ours: str, theirs: str, pc: int):
        if plain(ours) == plain(theirs):
            self.total['agreed'] += 1
        elif is_label(ours, theirs, pc, self._addresses):
            self.total.update(agreed=1, labels=1)
        else:
            self.differing[f'name: {ours or "??"} is {theirs or "??"}'] += 1

    def figures(self) -> dict:
        return {**self.total, 'differing': dict(self.differing.most_common()),
                'beyond': {name: count for name, count in self.beyond.most_common() if count}}


def frames(stops: list) -> dict:
    addresses = {}
    for stop in stops:
        addresses.update(stop['addresses'])
    found = Stacks(addresses)
    for stop in stops:
        for thread, stack in stop['theirs'].items():
            found.add(stop['ours'][thread]['frames'], stack['frames'], stack['why'])
    return {'stops': len(stops), **found.figures()}
