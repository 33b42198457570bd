"""Cuts seeds for fuzz targets out of a real kernel: cut_seeds.py VMLINUX NAME LAYOUT writes seeds/TARGET/NAME.

LAYOUT is that of its ORC entries, 0 to 3 (enum OrcLayout, os-awareness/linux/orc.h). VMLINUX is that of a debug package. What is cut is small and consistent: the first symbols of kallsyms with its own token
tables, the first types of BTF with the strings they use, the rows of ORC from the system call entry on."""
import pathlib
import struct
import subprocess
import sys

SEEDS = pathlib.Path(__file__).with_name('seeds')
IMAGE = 0xffffffff81000000  # where os_kallsyms.cpp says that its input lies
SYMBOLS, TYPES, ROWS = 300, 500, 100
MAGIC = 0xeb9f
# BTF kinds (include/uapi/linux/btf.h): bytes behind each type, for each of its `vlen`, and where in those a name and a type are.
TAILS = {1: (4, 0, [], []), 3: (12, 0, [], []), 4: (0, 12, [0], [4]), 5: (0, 12, [0], [4]), 6: (0, 8, [0], []),
         13: (0, 8, [0], [4]), 14: (4, 0, [], []), 15: (0, 12, [], [0]), 17: (4, 0, [], []), 19: (0, 12, [0], [])}
WITH_TYPE = {2, 8, 9, 10, 11, 12, 13, 14, 17, 18}  # the third word is a type


class Vmlinux:
    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        listing = subprocess.run(['readelf', '-SW', path], capture_output=True, text=True, check=True).stdout
        self.sections = {}
        for line in listing.splitlines():
            words = line.replace('[ ', '[').split()
            if len(words) > 6 and words[0].startswith('[') and words[1].startswith(('.', '__')):
                self.sections[words[1]] = tuple(int(word, 16) for word in words[3:6])
        names = subprocess.run(['nm', '--defined-only', path], capture_output=True, text=True, check=True).stdout
        self.symbols = {}
        for line in names.splitlines():
            address, _, name = line.split(' ', 2)
            self.symbols.setdefault(name, int(address, 16))

    def section(self, name):
        _, offset, size = self.sections[name]
        return self.data[offset:offset + size]

    def at(self, address, size):
        for start, offset, length in self.sections.values():
            if start and start <= address < start + length:
                return self.data[offset + address - start:offset + address - start + size]
        raise SystemExit(f'nothing is at {address:#x}')


def write(target, name, data):
    (SEEDS / target).mkdir(exist_ok=True)
    (SEEDS / target / name).write_bytes(data)
    print(f'{target}/{name}: {len(data)} bytes')


def kallsyms(kernel) -> bytes:
    """The tables one behind the other, as they lie in the kernel."""
    tables = ['num_syms', 'names', 'markers', 'token_table', 'token_index', 'offsets', 'relative_base', 'seqs_of_names']
    place = {table: kernel.symbols[f'kallsyms_{table}'] for table in tables if f'kallsyms_{table}' in kernel.symbols}
    one_byte = place['offsets'] < place['names'] and 'seqs_of_names' not in place  # until 6.1
    raw, at = kernel.at(place['names'], SYMBOLS * 64), 0
    for _ in range(SYMBOLS):
        length, at = raw[at], at + 1
        if length & 0x80 and not one_byte:
            length, at = length & 0x7f | raw[at] << 7, at + 1
        at += length
    ends = sorted(place.values())
    tokens = min(end for end in ends if end > place['token_table']) - place['token_table']
    content = {'num_syms': struct.pack('<I', SYMBOLS), 'names': raw[:at],
               'markers': kernel.at(place['markers'], (SYMBOLS + 255) // 256 * 4),
               'token_table': kernel.at(place['token_table'], tokens), 'token_index': kernel.at(place['token_index'], 512),
               'offsets': kernel.at(place['offsets'], SYMBOLS * 4), 'relative_base': kernel.at(place['relative_base'], 8)
               if 'relative_base' in place else b'', 'seqs_of_names': b''.join(i.to_bytes(3, 'big') for i in range(SYMBOLS))}
    align = 8 if 'relative_base' in place else 4
    image = bytearray()
    for table in sorted(place, key=place.get):
        image += bytes(-len(image) % align)
        data = content[table]
        if table == 'offsets' and 'relative_base' not in place:  # relative to each word's own place, since 7.0
            moved = IMAGE + len(image) - place['offsets']
            data = b''.join(struct.pack('<I', (word - moved) & 0xffffffff) for (word,) in struct.iter_unpack('<I', data))
        image += data
    return bytes(image)


def btf(kernel) -> tuple:
    """The types and the strings of the first of them; references to others become ones within."""
    blob = kernel.section('.BTF')
    magic, _, _, header, types, _, strings, _ = struct.unpack_from('<HBBIIIII', blob)
    assert magic == MAGIC
    pool, offsets = bytearray(1), {0: 0}

    def text(offset):
        if offset not in offsets:
            begin = header + strings + offset
            offsets[offset] = len(pool)
            pool.extend(blob[begin:blob.index(b'\0', begin) + 1])
        return offsets[offset]
    out, at = bytearray(), header + types
    for _ in range(TYPES):
        name, info, third = struct.unpack_from('<III', blob, at)
        kind, count = info >> 24 & 0x1f, info & 0xffff
        fixed, each, names, refers = TAILS.get(kind, (0, 0, [], []))
        tail = bytearray(blob[at + 12:at + 12 + fixed + each * count])
        for i in range(count if each else 0):
            for field in names:
                struct.pack_into('<I', tail, i * each + field, text(struct.unpack_from('<I', tail, i * each + field)[0]))
            for field in refers:
                struct.pack_into('<I', tail, i * each + field, struct.unpack_from('<I', tail, i * each + field)[0] % TYPES)
        if kind == 3:
            struct.pack_into('<II', tail, 0, *(value % TYPES for value in struct.unpack_from('<II', tail)))
        out += struct.pack('<III', text(name), info, third % TYPES if kind in WITH_TYPE else third) + tail
        at += 12 + fixed + each * count
    return bytes(out), bytes(pool)


def orc(kernel, layout) -> bytes:
    ips, entries = kernel.section('.orc_unwind_ip'), kernel.section('.orc_unwind')
    base = kernel.sections['.orc_unwind_ip'][0]
    rows = sorted((base + 4 * i + ip, struct.unpack_from('<hhH', entries, 6 * i))
                  for i, (ip,) in enumerate(struct.iter_unpack('<i', ips)))
    start = next(i for i, row in enumerate(rows) if row[0] >= kernel.symbols['entry_SYSCALL_64'])
    seed, before = bytearray([layout]), rows[start][0]
    for address, (sp, bp, bits) in rows[start:start + ROWS]:
        seed += struct.pack('>BhhH', min(address - before, 0xfe), sp, bp, bits)
        before = address
    return bytes(seed)


def symbol_file_seed(types, strings) -> bytes:
    """Slide, share of the types in 256ths (here half), types, strings (os_symbol_file.cpp). Forward declarations of 12 bytes
    and integers of 16 fill the types up."""
    size = (max(len(types), len(strings)) + 127) // 128 * 128
    while True:
        left = size - len(types)
        for integers in range(4):
            if left >= 16 * integers and (left - 16 * integers) % 12 == 0:
                filling = struct.pack('<IIII', 0, 1 << 24, 4, 32) * integers
                filling += struct.pack('<III', 0, 7 << 24, 0) * ((left - 16 * integers) // 12)
                return bytes([0, 3, 128]) + types + filling + strings.ljust(size, b'\0')
        size += 128


def main():
    kernel, name = Vmlinux(sys.argv[1]), sys.argv[2]
    write('os_kallsyms', name, kallsyms(kernel))
    types, strings = btf(kernel)
    header = struct.pack('<HBBIIIII', MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings))
    write('os_btf', name, bytes([0, 0]) + header + types + strings)
    write('os_symbol_file', name, symbol_file_seed(types, strings))
    write('os_orc', name, orc(kernel, int(sys.argv[3])))


if __name__ == '__main__':
    main()
