/* tiny: a guest of a few KiB whose load can be dialled while it runs.
 *
 * It stands in for a real virtual machine where the machine is emulated and small: it boots in half a
 * second, needs some 20 MiB, keeps its counters through live migration, and does a measured amount of
 * work. It has no operating system: a 100 Hz timer, a serial port and a loop.
 *
 * In, on the first serial port, words separated by white space or ';':
 *   l<n>  load: do work worth n thousandths of a core (by the speed measured at boot)
 *   w<n>  work: n units a second, a unit being 1000 rounds of a small loop; both fall behind when starved
 *   c<n>  spin n % of the wall-clock time, whether or not the time was given to the guest
 *   d<n>  dirty n pages of 4 KiB a second      s<n>  of a working set of n pages
 *   r<n>  1: fill dirtied pages with noise, 0: change one word of each
 *   p     print a line now                     x     reset (the lab's guests are then destroyed)
 *
 * Out: "GUEST-UP ..." once, "DIAL <word>" for each word obeyed, and a line a second:
 *   BEAT n=<count> ms=<since boot> clock=<seconds since 1970> cpu= work= dirty= set=  (the dials)
 *        done=<units of work ever> pages=<pages dirtied ever>
 * The count never restarts while the guest lives, so the logs of two hosts tell a hand-over from a
 * guest that runs twice. `ms` stands still while the guest is paused, `clock` does not.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum {
    TIMER_HZ = 100,
    BEAT_MS = 1000,
    LONGEST_GAP_MS = 200,  /* time not seen (starved, paused) makes no demand beyond this */
    LONGEST_BURST_MS = 100, /* look at the serial port and the beat at least this often */
    BACKLOG_MS = 1000,     /* work that a starved guest still owes; older work is forgotten */
    PAGE = 4096,
    COM1 = 0x3f8,
    ACPI_TIMER_PORT = 0x608, /* where the firmware puts it; the guest must be defined with <acpi/> */
    ACPI_TIMER_HZ = 3579545,
    ACPI_TIMER_MASK = 0xffffff,
};

extern void on_timer(void), on_other_interrupt(void), load_descriptor_tables(void);
extern char image_end[];

/* ---- the machine ---- */

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0,%1" ::"a"(value), "Nd"(port)); }

static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1,%0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u32 inl(u16 port)
{
    u32 value;
    __asm__ volatile("inl %1,%0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u64 timestamp(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return ((u64)high << 32) | low;
}

static inline void wait_for_interrupt(void) { __asm__ volatile("hlt"); }

/* 64 by 32 bits without a runtime library; the quotient's upper half is dropped. */
static u32 divide(u64 n, u32 by)
{
    u32 quotient, rest, high = (u32)(n >> 32) % by;
    __asm__("divl %4" : "=a"(quotient), "=d"(rest) : "0"((u32)n), "1"(high), "r"(by));
    return quotient;
}

u64 gdt[3] = {0, 0x00cf9a000000ffffULL, 0x00cf92000000ffffULL};
u32 idt[64][2];
struct __attribute__((packed)) { u16 limit; u32 base; } gdt_pointer, idt_pointer;

static void set_gate(int vector, void (*handler)(void))
{
    idt[vector][0] = (8u << 16) | ((u32)handler & 0xffff);
    idt[vector][1] = ((u32)handler & 0xffff0000) | 0x8e00;
}

void timer_tick(void) { outb(0x20, 0x20); } /* it has woken us: that is all */

static void start_interrupts(void)
{
    static const u8 setup[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28}, {0x21, 4},
                                  {0xa1, 2},    {0x21, 1},    {0xa1, 1},    {0x21, 0xfe}, {0xa1, 0xff}};
    for (int vector = 0; vector < 64; vector++) set_gate(vector, on_other_interrupt);
    set_gate(32, on_timer);
    gdt_pointer.limit = sizeof gdt - 1;
    gdt_pointer.base = (u32)gdt;
    idt_pointer.limit = sizeof idt - 1;
    idt_pointer.base = (u32)idt;
    load_descriptor_tables();
    for (u32 i = 0; i < sizeof setup / sizeof *setup; i++) outb(setup[i][0], setup[i][1]);
    u16 divisor = 1193182 / TIMER_HZ;
    outb(0x43, 0x34);
    outb(0x40, divisor & 255);
    outb(0x40, divisor >> 8);
    __asm__ volatile("sti");
}

/* ---- time ---- */

static u32 stamps_per_ms;
static u64 boot_stamp;

static u32 now_ms(void) { return divide(timestamp() - boot_stamp, stamps_per_ms); }

/* A reading of the ACPI timer and the time stamp of that moment: of several, the least disturbed. */
static u32 read_acpi_timer(u64 *stamp)
{
    u32 value = 0;
    u64 shortest = ~0ULL;
    for (int i = 0; i < 20; i++) {
        u64 before = timestamp();
        u32 now = inl(ACPI_TIMER_PORT) & ACPI_TIMER_MASK;
        u64 took = timestamp() - before;
        if (took >= shortest) continue;
        shortest = took;
        value = now;
        *stamp = before;
    }
    return value;
}

/* Not by counting interrupts: a starved guest misses some, and its clock would be wrong for life. */
static void measure_clock(void)
{
    u64 start_stamp, stamp;
    u32 start = read_acpi_timer(&start_stamp), passed;
    do {
        wait_for_interrupt();
        passed = (read_acpi_timer(&stamp) - start) & ACPI_TIMER_MASK;
    } while (passed < ACPI_TIMER_HZ / 20);
    u32 passed_us = divide((u64)passed * 1000000, ACPI_TIMER_HZ);
    stamps_per_ms = divide((stamp - start_stamp) * 1000, passed_us);
    boot_stamp = timestamp();
}

static u32 rtc_register(u8 index)
{
    outb(0x70, index);
    u8 value = inb(0x71);
    return (value >> 4) * 10 + (value & 15); /* QEMU's clock counts in BCD */
}

/* Seconds since 1970 by the battery clock, which follows the host's clock, also across a migration. */
static u32 wall_clock(void)
{
    static const u16 days_before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    do outb(0x70, 10);
    while (inb(0x71) & 0x80); /* being updated */
    u32 second = rtc_register(0), minute = rtc_register(2), hour = rtc_register(4);
    u32 day = rtc_register(7), month = rtc_register(8), years = rtc_register(9) + 30; /* since 1970 */
    u32 leap_days = (years + 1) / 4 + (month > 2 && (years + 2) % 4 == 0);
    u32 days = years * 365 + leap_days + days_before[month - 1] + day - 1;
    return ((days * 24 + hour) * 60 + minute) * 60 + second;
}

/* ---- the serial port ---- */

static void start_serial(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    outb(COM1 + 2, 1);
    outb(COM1 + 4, 3);
}

static void print(const char *text)
{
    while (*text) {
        while (!(inb(COM1 + 5) & 0x20)) {}
        outb(COM1, *text++);
    }
}

static void print_value(const char *label, u32 value)
{
    char digits[12];
    int at = sizeof digits - 1;
    digits[at] = 0;
    do digits[--at] = '0' + value % 10;
    while (value /= 10);
    print(label);
    print(digits + at);
}

/* ---- dials and counters ---- */

static struct { u32 cpu, work, dirty, set, noise; } dial = {.set = 256};
static struct { u32 beats, done, pages; } total;
static u32 speed; /* units of work a second, undisturbed */
static u32 first_page, page_limit;

static void beat(void)
{
    print_value("BEAT n=", total.beats++);
    print_value(" ms=", now_ms());
    print_value(" clock=", wall_clock());
    print_value(" cpu=", dial.cpu);
    print_value(" work=", dial.work);
    print_value(" dirty=", dial.dirty);
    print_value(" set=", dial.set);
    print_value(" done=", total.done);
    print_value(" pages=", total.pages);
    print("\r\n");
}

static void obey(char verb, u32 value)
{
    switch (verb) {
    case 'c': dial.cpu = value > 100 ? 100 : value; break;
    case 'w': dial.work = value; break;
    case 'l': dial.work = divide((u64)speed * value, 1000); break;
    case 'd': dial.dirty = value; break;
    case 's': dial.set = value < 1 ? 1 : value > page_limit ? page_limit : value; break;
    case 'r': dial.noise = value; break;
    case 'p': beat(); break;
    case 'x': outb(0x64, 0xfe); break;
    default: return;
    }
    char name[] = {verb, 0};
    print("DIAL ");
    print_value(name, value);
    print("\r\n");
}

static void read_commands(void)
{
    static char verb;
    static u32 value;
    while (inb(COM1 + 5) & 1) {
        char c = inb(COM1);
        if (c >= '0' && c <= '9') {
            value = value * 10 + (c - '0');
        } else if (c == '\n' || c == '\r' || c == ' ' || c == ';') {
            obey(verb, value);
            verb = 0;
        } else {
            verb = c;
            value = 0;
        }
    }
}

/* ---- the load ---- */

static void do_unit(void)
{
    static volatile u32 sink;
    for (u32 i = 0; i < 1000; i++) sink = i;
    (void)sink;
    total.done++;
}

/* The fastest of many short runs: a preempted run is slow, none is too fast. */
static void measure_speed(void)
{
    u64 best = ~0ULL;
    for (int run = 0; run < 50; run++) {
        u64 start = timestamp();
        for (int i = 0; i < 100; i++) do_unit();
        u64 took = timestamp() - start;
        if (took < best) best = took;
    }
    speed = divide((u64)stamps_per_ms * 1000 * 100, (u32)best);
    total.done = 0;
}

static void dirty_next_page(void)
{
    static u32 position, seed = 1;
    volatile u32 *page = (u32 *)(first_page + (position++ % dial.set) * PAGE);
    total.pages++;
    page[0]++;
    for (u32 i = 0; dial.noise && i < PAGE / 4; i++) {
        seed = seed * 1664525 + 1013904223;
        page[i] = seed;
    }
}

/* Both take what is owed, in thousandths, and return what is still owed. */
static u64 dirty_pages(u64 owed, u32 until)
{
    for (u32 n = 1; owed >= 1000; n++) {
        owed -= 1000;
        dirty_next_page();
        if (n % 64 == 0 && (int)(now_ms() - until) > 0) return 0;
    }
    return owed;
}

static u64 work(u64 owed, u32 until)
{
    for (u32 n = 1; owed >= 1000; n++) {
        owed -= 1000;
        do_unit();
        if (n % 16 == 0 && (int)(now_ms() - until) > 0) break;
    }
    u64 most = (u64)dial.work * BACKLOG_MS;
    return owed > most ? most : owed;
}

static void spin(u32 percent)
{
    u64 end = timestamp() + (u64)stamps_per_ms * percent * (1000 / TIMER_HZ) / 100;
    while (percent && timestamp() < end) do_unit();
}

static void find_memory(const u32 *multiboot)
{
    u32 upper_kib = multiboot[0] & 1 ? multiboot[2] : 2048;
    first_page = ((u32)image_end + 0xfffff) & ~0xfffffu;
    page_limit = ((upper_kib << 10) + 0x100000 - first_page) / PAGE;
}

void kernel_main(const u32 *multiboot)
{
    start_interrupts();
    start_serial();
    find_memory(multiboot);
    measure_clock();
    measure_speed();
    print_value("GUEST-UP speed=", speed);
    print_value(" pages=", page_limit);
    print("\r\n");

    u32 last = now_ms(), next_beat = last;
    u64 owed_pages = 0, owed_work = 0;
    for (;;) {
        if (owed_work < 1000) wait_for_interrupt();
        u32 now = now_ms(), gap = now - last;
        last = now;
        if (gap > LONGEST_GAP_MS) gap = LONGEST_GAP_MS;
        read_commands();
        owed_pages = dirty_pages(owed_pages + (u64)dial.dirty * gap, now + LONGEST_BURST_MS);
        owed_work = work(owed_work + (u64)dial.work * gap, now + LONGEST_BURST_MS);
        spin(dial.cpu);
        if ((int)(now_ms() - next_beat) >= 0) {
            next_beat += BEAT_MS;
            if ((int)(now_ms() - next_beat) > 0) next_beat = now_ms() + BEAT_MS; /* late: do not catch up */
            beat();
        }
    }
}
