"""Structures of two files: sizes, and place and width of every field, as gdb has them from DWARF.

    python3 structures.py MADE VMLINUX      MADE is what `exogdb symbols` writes"""
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'guest'))

from harness import gdb
from harness.errors import HarnessError

# Those that kernel developers look into most; a kernel need not have all of them.
STRUCTURES = [f'struct {name}' for name in '''
    task_struct signal_struct sighand_struct cred pid pid_namespace nsproxy thread_struct pt_regs
    mm_struct vm_area_struct page zone pglist_data kmem_cache address_space
    file files_struct fdtable inode dentry super_block path vfsmount mount file_operations
    sock socket sk_buff net net_device tcp_sock inet_sock
    bio request request_queue gendisk block_device
    device device_driver kobject module work_struct workqueue_struct timer_list hrtimer
    mutex rw_semaphore wait_queue_head rq cfs_rq irq_desc
    list_head rb_node
'''.split()]

IN_GDB = '''
import gdb, json

def fields(kind, base, found):
    # Those of anonymous members as if they were its own: name: [bit offset, bits]
    for field in kind.fields():
        if not hasattr(field, 'bitpos'):
            continue
        inner = field.type.strip_typedefs()
        if field.name:
            found[field.name] = [base + field.bitpos, field.bitsize or 8 * inner.sizeof]
        elif inner.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
            fields(inner, base + field.bitpos, found)
    return found

def layout(name):
    try:
        kind = gdb.lookup_type(name)
        return {{'size': kind.sizeof, 'fields': fields(kind, 0, {{}})}}
    except gdb.error:
        return None

json.dump({{name: layout(name) for name in {names!r}}}, open({answer!r}, 'w'))
'''


def layouts(path: str, limit: float = 3000) -> dict:
    with tempfile.TemporaryDirectory(prefix='exogdb-structures-') as folder:
        script, answer = pathlib.Path(folder, 'script.py'), pathlib.Path(folder, 'answer.json')
        script.write_text(IN_GDB.format(names=STRUCTURES, answer=str(answer)))
        output = gdb.batch(f'file {path}', f'source {script}', limit=limit, check=False)
        if not answer.exists():
            raise HarnessError(f'no layouts of {path}: {output[-1000:]}')
        return json.loads(answer.read_text())


def _differences(name: str, mine: dict, real: dict) -> list:
    found = [] if mine['size'] == real['size'] else [f'{name}: size {mine["size"]} is {real["size"]}']
    for field in sorted({*real['fields'], *mine['fields']}):
        if mine['fields'].get(field) != real['fields'].get(field):
            found.append(f'{name}.{field}: {mine["fields"].get(field)} is {real["fields"].get(field)}')
    return found


def compare(made: str, vmlinux: str) -> dict:
    ours, theirs = layouts(made), layouts(vmlinux)
    found = {'structures': 0, 'fields': 0, 'absent': [], 'differing': []}
    for name, real in theirs.items():
        if real is None:
            found['absent'].append(name)
            continue
        found['structures'] += 1
        found['fields'] += len(real['fields'])
        found['differing'] += _differences(name, ours[name] or {'size': None, 'fields': {}}, real)
    return found


def show(found: dict):
    print(f"    {found['structures']} structures, {found['fields']} fields, {len(found['differing'])} differ")
    for text in found['differing']:
        print(f'    differs {text}')
    if found['absent']:
        print(f"    not in this kernel: {', '.join(found['absent'])}", flush=True)


if __name__ == '__main__':
    show(compare(*sys.argv[1:3]))
