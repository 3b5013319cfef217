/* Entry, interrupt stubs and descriptor loading of the tiny guest: what C cannot say. */

    .section .multiboot, "a"
    .align 4
    .long 0x1BADB002, 2, -(0x1BADB002 + 2)      /* magic, "tell me the memory", checksum */

    .text
    .globl _start
_start:
    cli
    mov $stack_top, %esp
    push %ebx                                   /* multiboot information */
    call kernel_main
1:  hlt
    jmp 1b

    .globl on_timer                             /* IRQ 0, 100 times a second */
on_timer:
    pusha
    call timer_tick
    popa
    iret

    .globl on_other_interrupt                   /* acknowledge and forget */
on_other_interrupt:
    pusha
    mov $0x20, %al
    outb %al, $0x20
    outb %al, $0xa0
    popa
    iret

    .globl load_descriptor_tables
load_descriptor_tables:
    lgdt gdt_pointer
    ljmp $8, $2f
2:  mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %ax, %fs
    mov %ax, %gs
    lidt idt_pointer
    ret

    .bss
    .align 16
    .skip 16384
stack_top:
