"""Who may include whom: docs/ARCHITECTURE.md's arrows. rsp/ knows bytes, backends/ machines, os-awareness/ kernels;
they meet in stub/, which alone has Asio."""
import re

import tree

# Folder (the longest that matches): the folders of ours that it may include.
MAY_INCLUDE = {
    'rsp': ('rsp',),
    'backends/api': ('backends/api',),
    'backends/arch': ('backends/api', 'backends/arch'),
    'backends/host': ('backends/api', 'backends/host'),
    'backends/qemu': ('backends/api', 'backends/arch', 'backends/host', 'backends/qemu', 'rsp'),
    'backends/kvm': ('backends/api', 'backends/arch', 'backends/host', 'backends/kvm'),
    'backends/xen': ('backends/api', 'backends/arch', 'backends/host', 'backends/xen'),
    'backends/dump': ('backends/api', 'backends/arch', 'backends/dump'),
    'backends/gdbserver': ('backends/api', 'backends/arch', 'backends/gdbserver', 'rsp'),
    'backends': ('backends',),  # the registry, which names every backend
    'os-awareness': ('backends/api', 'backends/arch', 'os-awareness'),
    'stub': ('rsp', 'backends', 'os-awareness', 'stub'),
}
STANDARD_ONLY = ('rsp',)
WITH_ASIO = ('stub',)
NO_OPERATING_SYSTEM = ('rsp', 'backends/api', 'backends/arch', 'os-awareness')  # no sockets, no files, no processes


def within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + '/')


def owner(path: str):
    matching = [folder for folder in MAY_INCLUDE if within(path, folder)]
    return max(matching, key=len) if matching else None


def complaint(folder: str, kind: str, name: str):
    """Why a file of `folder` may not include this, or None. `kind` is the opening character."""
    top_level = {known.split('/')[0] for known in MAY_INCLUDE} | {'tests'}
    if kind == '"' and name.split('/')[0] not in top_level:
        return 'name it from the top of the tree, or use <> when it is not ours'
    if name.split('/')[0] in top_level:
        allowed = any(within(name, other) for other in MAY_INCLUDE[folder])
        return None if allowed else f'{folder}/ may include only {", ".join(MAY_INCLUDE[folder])}'
    if name.startswith(('boost/asio', 'asio')) and folder not in WITH_ASIO:
        return 'Asio is for stub/ only'
    intrinsics = re.fullmatch(r'[a-z]mmintrin\.h', name)  # the compiler's own vector instructions
    standard = re.fullmatch(r'[a-z0-9_]+', name)
    if folder in STANDARD_ONLY and not standard and not intrinsics:
        return 'the standard library only'
    if folder in NO_OPERATING_SYSTEM and not intrinsics and (name.endswith('.h') or name in ('fstream', 'filesystem')):
        return 'no I/O here'
    return None


def main():
    findings, checked = [], 0
    for path in tree.files('.h', '.cpp'):
        folder = owner(str(path))
        if not folder:
            continue
        checked += 1
        for number, text in tree.lines(path):
            found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)', text)
            why = complaint(folder, *found.groups()) if found else None
            if why:
                findings.append(f'{path}:{number}: {found.group(2)}: {why}')
    tree.finish(findings, checked)


if __name__ == '__main__':
    main()
