"""The guest's whole user space: busybox and guest-init in one cpio archive (newc, the format of
Documentation/driver-api/early-userspace/buffer-format.rst)."""
import gzip
import hashlib
import pathlib
import re
import shutil
import subprocess

from . import cache
from .errors import HarnessError, MissingPrerequisite

SOURCES = sorted((pathlib.Path(__file__).parent.parent / 'guest_init').glob('*.[ch]'))
PROGRAMS = pathlib.Path(__file__).parent.parent / 'guest_programs'
COMPILERS = {'.c': ('gcc', '-std=gnu17'), '.cpp': ('g++', '-std=gnu++17')}
OPTIONS = ('-pthread', '-O1', '-Wall', '-Wextra', '-Werror')
STATIC, DYNAMIC = ('-static',), ('-fPIE', '-pie')
# Of programs for which a C library would have to be there.
OWN_OPTIONS = {'bits32': ('-m32', '-static', '-nostdlib', '-ffreestanding', '-fno-pie', '-no-pie', '-fno-stack-protector',
                          '-fcf-protection=none', '-mno-sse')}
# What is cached is used by checkouts elsewhere, too: debug information names this folder, which gdb is told to map back.
SOURCE_ROOT = '/exogdb-guest-programs'


def _entry(name: str, mode: int, content: bytes = b'', device=(0, 0)) -> bytes:
    encoded = name.encode() + b'\0'
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b'070701' + b''.join(b'%08X' % field for field in fields) + encoded
    header += b'\0' * (-len(header) % 4)
    return header + content + b'\0' * (-len(content) % 4)


def _busybox() -> bytes:
    path = shutil.which('busybox')
    if not path:
        raise MissingPrerequisite('busybox (package busybox-static)')
    content = pathlib.Path(path).read_bytes()
    if b'/ld-linux' in content[:4096]:
        raise MissingPrerequisite(f'a static busybox (package busybox-static; {path} is dynamic)')
    return content


def _compiled(name: str, sources: list, options: tuple = ()) -> pathlib.Path:
    """The program; made once for each state of its sources."""
    compile_ = (*COMPILERS[sources[0].suffix], *OPTIONS, *options)
    digest = hashlib.sha256(' '.join((*compile_, SOURCE_ROOT)).encode())
    folder = sources[0].parent
    for path in sources:
        digest.update(path.read_bytes())
    binary = cache.root() / 'guest' / f'{name}-{digest.hexdigest()[:16]}'
    with cache.lock(f'guest/{name}'):
        if not binary.exists():
            if not shutil.which(compile_[0]):
                raise MissingPrerequisite(compile_[0])
            with cache.replacing(binary) as partial:
                command = [*compile_, f'-ffile-prefix-map={folder}={SOURCE_ROOT}', '-o', partial,
                           *(path.name for path in sources if path.suffix in COMPILERS)]
                result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                if result.returncode:
                    raise HarnessError(f'{name} does not compile: {result.stderr}')
        return binary


def guest_init() -> pathlib.Path:
    return _compiled('init', SOURCES, STATIC)


def program(name: str, dynamic: bool = False) -> pathlib.Path:
    """One of guest_programs, with debug information, as a debugger on this machine has it."""
    source = next(path for path in PROGRAMS.glob(f'{name}.*'))
    return _compiled(name, [source], ('-g', '-O0', *OWN_OPTIONS.get(name, DYNAMIC if dynamic else STATIC)))


def libraries(binary: pathlib.Path) -> list:
    """The paths of the shared libraries and the dynamic linker of a program, on this machine and in the guest."""
    listing = subprocess.run(['ldd', binary], capture_output=True, text=True, check=True).stdout
    return re.findall(r'(/\S+) \(0x', listing)


def archive(init: bytes, files: dict = None, programs: dict = None) -> bytes:
    """busybox, the program that is PID 1, and `files` and `programs`, which may be run: {name below the root: content}."""
    files, programs = files or {}, programs or {}
    folders = {'bin', 'dev', 'proc', 'sys', 'tmp', 'root'}
    for name in (*files, *programs):
        folders.update(str(parent) for parent in pathlib.PurePath(name).parents)
    folders.discard('.')
    directory, device, program = 0o040755, 0o020600, 0o100755
    whole = b''.join([
        *(_entry(name, directory) for name in sorted(folders)),  # parents come first
        _entry('dev/console', device, device=(5, 1)),
        _entry('bin/busybox', program, _busybox()),
        _entry('init', program, init),
        *(_entry(name, 0o100644, content) for name, content in files.items()),
        *(_entry(name, program, content) for name, content in programs.items()),
        _entry('TRAILER!!!', 0),
    ])
    return gzip.compress(whole, compresslevel=1, mtime=0)


def build(files: dict = None, programs: tuple = (), dynamic: bool = False) -> bytes:
    """The tests' guest, with `files` besides, and `programs` of guest_programs in /bin."""
    made = {f'bin/{name}': program(name, dynamic) for name in programs}
    if dynamic:
        made.update({path[1:]: pathlib.Path(path) for binary in list(made.values()) for path in libraries(binary)})
    return archive(guest_init().read_bytes(), files, {name: path.read_bytes() for name, path in made.items()})
