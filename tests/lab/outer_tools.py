"""The QEMU that emulates the outer machine: not this machine's own, whose emulation of SVM may be too old.

Of 7.2's guests with two vCPUs one in five to twenty falls silent: it changes what interrupts a processor has without a
lock, so that one of another thread is lost (`cs->interrupt_request` in target/i386/tcg/sysemu/svm_helper.c; atomic from 10.2
on). Its VMRUN does not arm the guest's DR7 either; 11's does."""
import unpacked

SUITE = 'forky'
PACKAGES = ('qemu-system-x86', 'qemu-system-data', 'seabios')
DATA = ('usr/share/qemu', 'usr/share/seabios')


def words(program: str) -> list:
    """The beginning of its command line. 170 MB when unpacked."""
    folder = unpacked.fetch('qemu', SUITE, PACKAGES)
    return [*unpacked.program(folder, program), *(word for data in DATA for word in ('-L', folder / data))]
