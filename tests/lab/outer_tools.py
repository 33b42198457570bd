"""The QEMU that emulates the outer machine: not this machine's own, whose emulation of SVM may be too old.

Where guests look silent there are two reasons that are no debugger's. Up to 10.1 it changes what interrupts a processor has
without a lock (`cs->interrupt_request` in target/i386/tcg/sysemu/svm_helper.c; atomic since), so that one that comes from
another thread may be lost. And a clock that the outer kernel has given up: see outer.COMMAND_LINE. 7.2's VMRUN does not arm
the guest's DR7 either; 11's does, so that hardware breakpoints and watchpoints can be tested on whole Linux guests."""
import unpacked

SUITE = 'forky'
PACKAGES = ('qemu-system-x86', 'qemu-system-data', 'seabios')
DATA = ('usr/share/qemu', 'usr/share/seabios')


def words(program: str) -> list:
    """The beginning of its command line. 170 MB when unpacked."""
    folder = unpacked.fetch('qemu', SUITE, PACKAGES)
    return [*unpacked.program(folder, program), *(word for data in DATA for word in ('-L', folder / data))]
