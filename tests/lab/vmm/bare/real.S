# 16-bit real mode, linked at 0 of its segment: each vCPU counts in its record (record.inc) and vCPU 0 prints a dot
# every 65536 rounds. Symbols for a debugger: loop_N, which vCPU N passes alone.
#include "record.inc"

        .code16
        .globl  entries

# vCPU n starts 16 * n bytes in, n in di.
entries:
        .irp    number, 0, 1, 2, 3
        .balign 16
        mov     $((RECORDS + RECORD_SIZE * \number) >> 4), %ax
        mov     %ax, %es
        jmp     loop_\number
        .endr

        .irp    number, 0, 1, 2, 3
        .balign 16
        .globl  loop_\number
loop_\number:
        incl    %es:ROUNDS
        .if     \number == 0
        cmpw    $0, %es:ROUNDS
        jne     1f
        mov     $'.', %al
        mov     $COM1, %dx
        out     %al, (%dx)
        incl    %es:LINES
1:
        .endif
        jmp     loop_\number
        .endr
