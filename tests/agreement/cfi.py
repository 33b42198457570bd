"""Call frame information of two files, rule by rule: for every byte of code that both know, is the caller's frame in the
same place, and the caller's rbp?

    python3 cfi.py MADE VMLINUX      MADE is what `exogdb symbols` writes

Both may be right on rbp: between its save and its first change, and from its restore on, register and slot hold the same.
Left out are rules that are expressions, and padding: no-ops between code that are jumped over, for which objtool makes no
rule. readelf works out the rows of both (binutils, `readelf --debug-dump=frames-interp`)."""
import bisect
import collections
import mmap
import re
import struct
import subprocess
import sys

FDE = re.compile(r'^[0-9a-f]+ [0-9a-f]+ [0-9a-f]+ FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)')
ROW = re.compile(r'^([0-9a-f]{16}) (\S+) +(.*)')
KERNEL = 0xffffffff80000000
SAME = 'same'


def rows(path: str):
    """(start, end, CFA, where the caller's rbp is, where the return address is), as readelf writes them."""
    command = ['readelf', '--wide', '--debug-dump=frames-interp', path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as readelf:
        columns, open_row, end = [], None, 0
        for line in readelf.stdout:
            header = FDE.match(line)
            row = ROW.match(line) if not header else None
            if (header or row) and open_row:
                yield open_row[0], int(row.group(1), 16) if row else end, *open_row[1:]
                open_row = None
            if header:
                end, columns = int(header.group(2), 16), []
            elif line.startswith('   LOC'):
                columns = line.split()[2:]
            elif row and columns:
                rules = dict(zip(columns, row.group(3).split()))
                open_row = int(row.group(1), 16), row.group(2), rules.get('rbp', 'u'), rules.get('ra', 'u')
            elif not line.strip() and open_row:
                yield open_row[0], end, *open_row[1:]
                open_row = None
        if open_row:
            yield open_row[0], end, *open_row[1:]


def kernel_rows(path: str) -> list:
    plain = {'u': SAME, 's': SAME}
    return sorted((start, end, cfa, plain.get(rbp, rbp), ra) for start, end, cfa, rbp, ra in rows(path)
                  if start >= KERNEL and end > start)


def overlaps(ours: list, theirs: list):
    """(bytes, at, our row, their row) of what both know."""
    at = 0
    for row in theirs:
        while at < len(ours) and ours[at][1] <= row[0]:
            at += 1
        other = at
        while other < len(ours) and ours[other][0] < row[1]:
            start, end = max(ours[other][0], row[0]), min(ours[other][1], row[1])
            if end > start:
                yield end - start, start, ours[other], row
            other += 1


class Names:
    def __init__(self, path: str):
        text = subprocess.run(['nm', '-n', path], capture_output=True, text=True, check=True).stdout
        pairs = [(int(line[:16], 16), line[19:]) for line in text.splitlines() if line[17:18] in 'tTwW']
        self._addresses, self._names = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def __call__(self, address: int) -> str:
        index = bisect.bisect_right(self._addresses, address) - 1
        return self._names[index] if index >= 0 else '?'


class Code:
    """The bytes of a vmlinux by address (ELF program headers)."""

    def __init__(self, path: str):
        with open(path, 'rb') as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table, = struct.unpack_from('<Q', self._file, 32)
        count, = struct.unpack_from('<H', self._file, 56)
        headers = (struct.unpack_from('<IIQQQQQQ', self._file, table + 56 * index) for index in range(count))
        self._loads = [(address, size, offset) for kind, _, offset, address, _, size, _, _ in headers if kind == 1]

    def is_padding(self, address: int) -> bool:
        """nop, int3, or a long nop with its prefixes (Intel SDM, NOP)."""
        for start, size, offset in self._loads:
            if start <= address < start + size:
                begin = offset + address - start
                code = self._file[begin:begin + 16].lstrip(b'\x66\x2e')
                return code[:1] in (b'\x90', b'\xcc') or code[:2] == b'\x0f\x1f'
        return False


def compare(made: str, vmlinux: str) -> dict:
    ours, theirs = kernel_rows(made), kernel_rows(vmlinux)
    code = Code(vmlinux)
    total, kinds, places = collections.Counter(), collections.Counter(), {}
    for size, at, mine, real in overlaps(ours, theirs):
        if 'exp' in (mine[2], real[2]) or real[3] == 'exp' or mine[3] == 'exp':
            total['expressions'] += size
            continue
        no_caller = mine[4] == 'u'
        if no_caller and code.is_padding(at):
            total['padding'] += size
            continue
        total['compared'] += size
        if no_caller:
            kind = 'ORC has no rule'
        elif mine[2] != real[2]:
            kind = f'CFA {mine[2]} is {real[2]}'
        else:
            total['agreed'] += size
            total['rbp_agreed'] += size if mine[3] == real[3] else 0
            continue
        kinds[kind] += size
        places.setdefault(kind, collections.Counter())[at] += size
    name = Names(made)
    known = sum(end - start for start, end, *_ in theirs)
    return {'known': known, **total,
            'differing': [(size, kind, sorted({name(at) for at in places[kind]})) for kind, size in
                          kinds.most_common()]}


def show(found: dict):
    percent = 100 * found['agreed'] / max(1, found['compared'])
    print(f"    rules: {found['known']} bytes of code in the real .debug_frame, {found['compared']} compared "
          f"({found.get('expressions', 0)} by expressions and {found.get('padding', 0)} of padding are not), "
          f"{found['agreed']} agree: {percent:.3f} %; on rbp too {found['rbp_agreed']}")
    for size, kind, names in found['differing'][:20]:
        print(f'    differs {size} bytes × {kind}: {", ".join(names[:6])}{" …" if len(names) > 6 else ""}')
    rest = found['differing'][20:]
    if rest:
        print(f'    differs {sum(row[0] for row in rest)} bytes in {len(rest)} more kinds', flush=True)


if __name__ == '__main__':
    show(compare(*sys.argv[1:3]))
