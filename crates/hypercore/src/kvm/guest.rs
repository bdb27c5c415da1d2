//! The guest code of the probe, and the memory that it finds.
//!
//! ```text
//!   0x1000  code           0x3000 descriptor table     0x4000 interrupt table
//!   0x5000  PML4           0x6000 PDPT, lower half     0x7000 PDPT, upper half
//!   0x8000  page directory: one page of 2 MiB, from 0  0xf000 stack, downwards
//! ```
//!
//! The same 2 MiB are seen at 0 and at 0xffff_ffff_8000_0000. The whole file may be `unsafe`, since assembly counts as such.

use std::arch::global_asm;

/// The size of the guest's memory in bytes.
pub(super) const MEMORY: usize = 2 << 20;
/// Where its code begins, in 32-bit protected mode.
pub(super) const ENTRY: u64 = 0x1000;
/// The port on which it reports: stages 1 to 5, or [`FAULT`] and more for what it saw wrong.
pub(super) const PORT: u16 = 0xf4;
/// The first report of something wrong.
pub(super) const FAULT: u8 = 0xe0;

// SAFETY: the assembly only fills a read-only section of its own; this program never executes it.
global_asm!(
    ".pushsection .rodata.kvm_probe, \"a\"",
    ".balign 16",
    "vimana_kvm_probe:",
    ".code32",
    "  mov $0xf000, %esp",
    "  mov %cr4, %eax",
    "  or $0x20, %eax",
    "  mov %eax, %cr4",
    "  mov $0x5000, %eax",
    "  mov %eax, %cr3",
    "  mov $0xc0000080, %ecx",
    "  rdmsr",
    "  or $0x100, %eax",
    "  wrmsr",
    "  mov %cr0, %eax",
    "  or $0x80000000, %eax",
    "  mov %eax, %cr0",
    "  lgdt 0x3100",
    "  ljmp $8, $(2f - vimana_kvm_probe + 0x1000)",
    ".code64",
    // The report of stage n; it takes %al only.
    "2: mov $1, %al",
    "  out %al, $0xf4",
    // To the upper half.
    "  mov $0xffffffff80001000, %rax",
    "  add $(3f - vimana_kvm_probe), %rax",
    "  jmp *%rax",
    "3: movabs $0xffffffff8000f000, %rsp",
    "  mov $2, %al",
    "  out %al, $0xf4",
    // Descriptor tables by their addresses in the upper half, and all segments.
    "  movabs $0xffffffff80003110, %rbx",
    "  lgdt (%rbx)",
    "  lidt 16(%rbx)",
    "  mov $0x10, %eax",
    "  mov %eax, %ds",
    "  mov %eax, %es",
    "  mov %eax, %ss",
    "  pushq $8",
    "  lea 4f(%rip), %rax",
    "  push %rax",
    "  lretq",
    "4: mov $0xe1, %dl",
    "  mov %cs, %eax",
    "  cmp $8, %ax",
    "  jne 9f",
    "  mov $0xe2, %dl",
    "  sub $16, %rsp",
    "  sidt (%rsp)",
    "  cmpw $0x1ff, (%rsp)",
    "  jne 9f",
    "  mov $0xe3, %dl",
    "  sgdt (%rsp)",
    "  cmpw $0x17, (%rsp)",
    "  jne 9f",
    "  add $16, %rsp",
    "  mov $0xe4, %dl",
    "  sti",
    "  pushfq",
    "  pop %rax",
    "  cli",
    "  bt $9, %eax",
    "  jnc 9f",
    "  pushfq",
    "  pop %rax",
    "  bt $9, %eax",
    "  jc 9f",
    // An interrupt flag that comes by popf, as kernels restore it.
    "  or $0x200, %eax",
    "  push %rax",
    "  popfq",
    "  pushfq",
    "  pop %rax",
    "  cli",
    "  bt $9, %eax",
    "  jnc 9f",
    "  mov $3, %al",
    "  out %al, $0xf4",
    // Registers that a kernel writes early.
    "  mov $0xe5, %dl",
    "  mov %cr3, %rax",
    "  mov %rax, %cr3",
    "  cmp $0x5000, %rax",
    "  jne 9f",
    "  mov $0xe6, %dl",
    "  mov %cr4, %rax",
    "  or $0x80, %rax",
    "  mov %rax, %cr4",
    "  mov %cr4, %rax",
    "  bt $7, %eax",
    "  jnc 9f",
    "  mov $0xe7, %dl",
    "  mov %cr0, %rax",
    "  or $0x10000, %rax",
    "  mov %rax, %cr0",
    "  mov %cr0, %rax",
    "  bt $16, %eax",
    "  jnc 9f",
    "  mov $0xe8, %dl",
    "  mov $0xc0000080, %ecx",
    "  rdmsr",
    "  mov $0xe8, %dl",
    "  bt $10, %eax",
    "  jnc 9f",
    "  mov $0xc0000101, %ecx",
    "  mov $0x80000000, %eax",
    "  mov $0xffffffff, %edx",
    "  wrmsr",
    "  mov $0xe9, %dl",
    "  movl %gs:0x3000, %eax",
    "  cmp 0x3000, %eax",
    "  jne 9f",
    "  swapgs",
    "  xor %eax, %eax",
    "  xor %ecx, %ecx",
    "  cpuid",
    "  mov $0xea, %dl",
    "  test %eax, %eax",
    "  jz 9f",
    "  invlpg 0x3000",
    "  mov $4, %al",
    "  out %al, $0xf4",
    // Exceptions: the breakpoint's handler sets r14, that of the illegal instruction sets r15 and steps over it.
    "  xor %r14d, %r14d",
    "  xor %r15d, %r15d",
    "  int3",
    "  ud2",
    "  mov $0xeb, %dl",
    "  cmp $3, %r14d",
    "  jne 9f",
    "  cmp $6, %r15d",
    "  jne 9f",
    "  mov %cs, %eax",
    "  cmp $8, %ax",
    "  jne 9f",
    "  mov $5, %al",
    "  out %al, $0xf4",
    "8: hlt",
    "  jmp 8b",
    "9: mov %dl, %al",
    "  out %al, $0xf4",
    "  jmp 8b",
    "vimana_kvm_probe_breakpoint:",
    "  mov $3, %r14d",
    "  iretq",
    "vimana_kvm_probe_illegal:",
    "  mov $6, %r15d",
    "  addq $2, (%rsp)",
    "  iretq",
    "vimana_kvm_probe_end:",
    ".popsection",
    options(att_syntax)
);

// SAFETY: the four symbols are defined by the assembly above, in one read-only section, in this order.
unsafe extern "C" {
    safe static vimana_kvm_probe: u8;
    safe static vimana_kvm_probe_breakpoint: u8;
    safe static vimana_kvm_probe_illegal: u8;
    safe static vimana_kvm_probe_end: u8;
}

/// The address that a lower one has in the upper half.
const UPPER: u64 = 0xffff_ffff_8000_0000;

/// Everything that is not zero in the guest's memory: where, and what.
pub(super) fn contents() -> Vec<(usize, Vec<u8>)> {
    let start = &raw const vimana_kvm_probe;
    let offset = |symbol: *const u8| symbol.addr().saturating_sub(start.addr());
    let length = offset(&raw const vimana_kvm_probe_end);
    // SAFETY: both symbols are in one section that the assembly above fills without a gap.
    let code = unsafe { std::slice::from_raw_parts(start, length) }.to_vec();
    let handler = |symbol| UPPER.wrapping_add(ENTRY).wrapping_add(offset(symbol) as u64);

    // Present, writable; 0x80 is a page of 2 MiB.
    let entry = |value: u64| value.to_le_bytes().to_vec();
    let table = |limit: u16, base: u64| [limit.to_le_bytes().to_vec(), entry(base)].concat();
    vec![
        (0x1000, code),
        // Null, 64-bit code, data.
        (0x3000, [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].map(u64::to_le_bytes).concat()),
        (0x3100, table(0x17, 0x3000)),
        (0x3110, table(0x17, UPPER | 0x3000)),
        (0x3120, table(0x1ff, UPPER | 0x4000)),
        (0x4000 + 3 * 16, gate(handler(&raw const vimana_kvm_probe_breakpoint))),
        (0x4000 + 6 * 16, gate(handler(&raw const vimana_kvm_probe_illegal))),
        (0x5000, entry(0x6003)),
        (0x5000 + 511 * 8, entry(0x7003)),
        (0x6000, entry(0x8003)),
        (0x7000 + 510 * 8, entry(0x8003)),
        (0x8000, entry(0x83)),
    ]
}

/// A 64-bit interrupt gate to the code segment.
fn gate(handler: u64) -> Vec<u8> {
    let [a, b, c, d, high @ ..] = handler.to_le_bytes();
    let low = [a, b, 8, 0, 0, 0x8e, c, d];
    [&low[..], &high, &[0; 4]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// An image that QEMU's multiboot loader enters in 32-bit protected mode: it puts the probe's memory in its place.
    fn an_image() -> Vec<u8> {
        const BASE: u32 = 0x10_0000;
        let mut memory = vec![0; 0xf000];
        for (place, bytes) in contents() {
            memory[place..place + bytes.len()].copy_from_slice(&bytes);
        }
        let payload = &memory[0x1000..];
        let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
        let checksum = 0_u32.wrapping_sub(magic.wrapping_add(flags));
        let end = BASE + 64 + payload.len() as u32;
        let header = [magic, flags, checksum, BASE, BASE, end, end, BASE + 32];
        let mut image = header.map(u32::to_le_bytes).concat();
        // cld; mov $payload, %esi; mov $0x1000, %edi; mov $length, %ecx; rep movsb; mov $0x1000, %eax; jmp *%eax
        image.extend([0xfc, 0xbe]);
        image.extend((BASE + 64).to_le_bytes());
        image.push(0xbf);
        image.extend(0x1000_u32.to_le_bytes());
        image.push(0xb9);
        image.extend((payload.len() as u32).to_le_bytes());
        image.extend([0xf3, 0xa4, 0xb8]);
        image.extend(0x1000_u32.to_le_bytes());
        image.extend([0xff, 0xe0]);
        image.resize(64, 0x90);
        image.extend(payload);
        image
    }

    #[test]
    fn on_a_processor_that_works_the_guest_reports_every_stage_and_nothing_wrong() {
        const TEST: &str = "on_a_processor_that_works_the_guest_reports_every_stage_and_nothing_wrong";
        let Some(qemu) = crate::spawn::find("qemu-system-x86_64") else {
            return eprintln!("SKIPPED: {TEST}: qemu-system-x86_64 isn't installed");
        };
        let folder = tempfile::tempdir().unwrap();
        let (image, reports) = (folder.path().join("image"), folder.path().join("reports"));
        fs::write(&image, an_image()).unwrap();
        let mut command = Command::new(qemu);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-accel",
            "tcg",
            "-m",
            "16",
        ]);
        command.arg("-kernel").arg(&image).arg("-chardev");
        command.arg(format!("file,id=reports,path={}", reports.display()));
        command.args(["-device", "isa-debugcon,iobase=0xf4,chardev=reports"]).stdin(Stdio::null());
        let mut running = command.spawn().unwrap();
        let begin = Instant::now();
        let mut said = Vec::new();
        while said.len() < 5
            && begin.elapsed() < Duration::from_secs(60)
            && running.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(20));
            said = fs::read(&reports).unwrap_or_default();
        }
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(said, [1, 2, 3, 4, 5]);
    }
}
