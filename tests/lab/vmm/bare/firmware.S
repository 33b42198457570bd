# A PC's firmware, for QEMU's -bios: 64 KiB of ROM, entered at the reset vector, all of it in real mode. vCPU 0 stays in ROM, where
# nothing of the guest's memory is to be seen, until ebp is not 0, or the byte at GO. Then it wakes the others, and each counts in
# RAM, by code in RAM: vCPU 0 at COUNTERS, all others at COUNTERS + 8.
.set GO,             0x540
.set COUNTERS,       0x500
.set IN_RAM,         0x8000     # a page that a start-up IPI can name
.set STACK_TOP,      0x7000
.set APIC_BASE_MSR,  0x1b
.set X2APIC,         0xc00      # enabled, as x2APIC
.set ICR_MSR,        0x830
.set INIT_ALL,       0xc4500    # to all but this one
.set STARTUP_ALL,    0xc4600 + (IN_RAM >> 12)

        .code16
        .globl  entries, in_rom, in_ram

entries:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $STACK_TOP, %sp
        xor     %ebp, %ebp
in_rom:
        cmpb    $0, GO
        jne     1f
        test    %ebp, %ebp
        jz      in_rom
1:
        mov     $(others - entries), %si
        mov     $IN_RAM, %di
        mov     $(end - others), %cx
        cld
        rep movsb %cs:(%si), %es:(%di)
        mov     $APIC_BASE_MSR, %ecx
        rdmsr
        or      $X2APIC, %eax
        wrmsr
        xor     %edx, %edx
        mov     $ICR_MSR, %ecx
        mov     $INIT_ALL, %eax
        wrmsr
        mov     $STARTUP_ALL, %eax
        wrmsr
        mov     $COUNTERS, %bx
        ljmp    $0, $(IN_RAM + in_ram - others)

others:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     $(COUNTERS + 8), %bx
in_ram:
        incl    (%bx)
        jmp     in_ram
end:

        .org    0xfff0          # the reset vector
        ljmp    $0xf000, $entries
        .org    0x10000
