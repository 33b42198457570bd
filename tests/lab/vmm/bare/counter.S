# Each vCPU counts in a loop of its own, as fast as it can, and calls one function that all share. vCPU 0 prints.
# Symbols for a debugger: loop_N (vCPU N passes there alone), shared, watched and write_watched.
#include "record.inc"

        .code64
        .globl  entries, shared, watched, write_watched

# vCPU n starts 16 * n bytes in, n in rdi, their number in rsi.
entries:
        .irp    number, 0, 1, 2, 3
        .balign 16
        mov     %rsi, %r15                      # how many there are
        mov     $(RECORDS + RECORD_SIZE * \number), %ebx
        jmp     loop_\number
        .endr

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

# Every 2^26 cycles of the time-stamp counter.
print_at_times:
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        cmp     %r13, %rax
        jb      1f
        add     $(1 << 26), %rax
        mov     %rax, %r13
        push    %rbx
        mov     %r15, %rdi
        call    print_records
        pop     %rbx
1:      ret

#include "print.inc"

        .balign 64
watched:
        .quad   0
