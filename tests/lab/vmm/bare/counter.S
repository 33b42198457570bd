# Each vCPU counts in a loop of its own, as fast as it can, and calls one function that all share. vCPU 0 prints.
# Symbols for a debugger: loop_N (vCPU N passes there alone), shared, watched and write_watched.
#include "record.inc"

        .code64
        .globl  entries, shared, watched, write_watched

# vCPU n starts 16 * n bytes in, n in rdi, their number in rsi.
entries:
        .irp    number, 0, 1, 2, 3
        .balign 16
        lea     loop_\number(%rip), %rbp
        jmp     start
        .endr

        .balign 16
start:
        mov     %rsi, %r15                      # how many there are
        imul    $RECORD_SIZE, %edi, %ebx
        add     $RECORDS, %ebx                  # rbx: this vCPU's record
        call    load_exception_gates
        jmp     *%rbp

        .irp    number, 0, 1, 2, 3
        .balign 64
        .globl  loop_\number
loop_\number:
        incq    ROUNDS(%rbx)
        call    shared
        .if     \number == 0
        call    print_at_times
        .endif
        jmp     loop_\number
        .endr

        .balign 64
shared:
        inc     %r12
        nop
        test    $0xfff, %r12d
        jnz     1f
write_watched:
        mov     %r12, watched(%rip)
1:      ret

# 2^26 cycles of the time-stamp counter after it last printed.
print_at_times:
        call    read_time
        cmp     %r13, %rax
        jb      1f
        push    %rbx
        mov     %r15, %rdi
        call    print_records
        pop     %rbx
        call    read_time
        add     $(1 << 26), %rax
        mov     %rax, %r13
1:      ret

read_time:
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        ret

#include "print.inc"
#include "exceptions.inc"

        .data
        .balign 64
watched:
        .quad   0
