# What a debugger can get wrong under a guest's feet. In each round every vCPU
#   - takes an int3 of its own and looks whether its handler counted it once,
#   - pushes its flags and looks whether they are what it left (a trap flag must not show),
#   - loads SS, which holds debug exceptions back for an instruction,
#   - copies memory by rep movsb and compares it, and sums its own text,
#   - enables interrupts and halts until its local APIC's timer wakes it.
# vCPU 0 prints every 16 rounds. Symbols for a debugger: round, int3_here, pushf_here, ss_here, rep_here, sti_here,
# hlt_here, and NAME_next after each.
#include "record.inc"

.set APIC,              0xfee00000
.set TIMER_VECTOR,      0x40
.set TIMER_COUNT,       4000000         # of the APIC's clock, which in KVM has 1 ns
.set COPY_SIZE,         2048
.set STACK_SIZE,        1 << STACK_SHIFT
.set IA32_GS_BASE,      0xc0000101
.set DATA_SELECTOR,     0x18
.set FLAGS_WANTED,      0x46            # ZF, PF and the bit that is always set: what xor leaves, interrupts off

        .code64
        .globl  entries, round, int3_here, int3_here_next, pushf_here, pushf_here_next, ss_here, ss_here_next
        .globl  rep_here, rep_here_next, sti_here, sti_here_next, hlt_here, hlt_here_next

# vCPU n starts 16 * n bytes in, n in rdi, their number in rsi.
entries:
        .rept   16
        .balign 16
        jmp     start
        .endr
        .balign 16

start:
        mov     %rdi, %r14
        mov     %rsi, %r15
        imul    $RECORD_SIZE, %edi, %ebx
        add     $RECORDS, %ebx                  # rbx: this vCPU's record, from here on
        mov     $IA32_GS_BASE, %ecx             # for the handlers, whatever registers hold
        mov     %ebx, %eax
        xor     %edx, %edx
        wrmsr
        test    %r14, %r14                      # vCPU 0 makes the gates for all
        jnz     2f
        call    make_gates
        movl    $1, gates_made(%rip)
1:      pause
2:      cmpl    $0, gates_made(%rip)
        je      1b
        lidt    descriptor_table_pointer(%rip)
        call    start_timer
        call    sum_text
        mov     %rax, %r13

round:
        mov     INT3_HITS(%rbx), %r12
int3_here:
        int3
int3_here_next:
        inc     %r12
int3_after:
        cmp     %r12, INT3_HITS(%rbx)
        call    count_check

        xor     %eax, %eax
pushf_here:
        pushfq
pushf_here_next:
        pop     %rax
        cmp     $FLAGS_WANTED, %rax
        call    count_check

        mov     $DATA_SELECTOR, %eax
ss_here:
        mov     %eax, %ss
ss_here_next:
        incq    ROUNDS(%rbx)                    # the instruction that is shadowed
ss_after:

        call    copy_and_compare
        call    count_check
        call    sum_text
        cmp     %r13, %rax
        je      1f
        incq    TEXT_CHANGES(%rbx)
1:
sti_here:
        sti
sti_here_next:                                  # shadowed as well: the interrupt can only come in the hlt
hlt_here:
        hlt
hlt_here_next:
        cli
        test    %r14, %r14
        jnz     round
        testb   $15, ROUNDS(%rbx)
        jnz     round
        push    %rbx
        mov     %r15, %rdi
        call    print_records
        pop     %rbx
        jmp     round

# ZF: the check held.
count_check:
        jne     1f
        incq    RIGHT(%rbx)
        ret
1:      incq    WRONG(%rbx)
        ret

# Above the stacks, so that no two vCPUs share it: from 0x80000 + 0x1000 * n. ZF: what was copied compares equal.
copy_and_compare:
        imul    $0x1000, %r14d, %edi
        add     $0x80000, %edi
        mov     ROUNDS(%rbx), %rax              # another pattern in each round
        mov     $(COPY_SIZE / 8), %ecx
        mov     %rdi, %rsi
        cld
        rep     stosq
        mov     $COPY_SIZE, %ecx
rep_here:
        rep     movsb                           # from the first half to the second
rep_here_next:
        sub     $COPY_SIZE, %rdi
        lea     -COPY_SIZE(%rdi), %rsi
        mov     $(COPY_SIZE / 8), %ecx
        repe    cmpsq
        ret

# rax: the sum of the program's text, 8 bytes at a time.
sum_text:
        xor     %eax, %eax
        mov     $entries, %esi
1:      add     (%rsi), %rax
        add     $8, %rsi
        cmp     $text_end, %rsi
        jb      1b
        ret

make_gates:
        call    load_exception_gates
        mov     $1, %esi
        lea     on_debug(%rip), %rdx
        call    set_gate
        mov     $3, %esi
        lea     on_int3(%rip), %rdx
        call    set_gate
        mov     $TIMER_VECTOR, %esi
        lea     on_timer(%rip), %rdx
        call    set_gate
        mov     $0xff, %esi
        lea     on_spurious(%rip), %rdx
        jmp     set_gate

# The local APIC's registers: SDM volume 3, table 10-1.
start_timer:
        mov     $0xff, %al                      # the 8259s are silent
        out     %al, $0x21
        out     %al, $0xa1
        mov     $APIC, %eax
        movl    $0x1ff, 0xf0(%rax)              # enabled, spurious vector 0xff
        movl    $0xb, 0x3e0(%rax)               # divided by 1
        movl    $(0x20000 | TIMER_VECTOR), 0x320(%rax)
        movl    $TIMER_COUNT, 0x380(%rax)
        ret

on_int3:
        incq    %gs:INT3_HITS
        iretq
on_debug:
        incq    %gs:STRAY
        andl    $~0x100, 16(%rsp)               # or every instruction from here on would trap
        iretq
on_timer:
        incq    %gs:TICKS
        push    %rax
        mov     $APIC, %eax
        movl    $0, 0xb0(%rax)                  # end of interrupt
        pop     %rax
on_spurious:
        iretq

#include "print.inc"
#include "exceptions.inc"

        .balign 8
text_end:
        .data
gates_made:
        .long   0
