"""Real guests and real clients for the tests: stock kernels, a small initramfs, libvirt domains or plain QEMU,
the exogdb server, gdb and lldb. Python's standard library only."""
