//! The GDT and the task state segment: in long mode, little more than the table of interrupt stacks.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::stack;

/// Which interrupt stack a gate switches to: an index into the TSS's table (SDM vol. 3, 7.14.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum InterruptStack {
    /// Device interrupts and the timer.
    Interrupt = 0,
    /// Exceptions.
    Fault = 1,
    /// Vector 2.
    NonMaskable = 2,
    /// Vector 8.
    DoubleFault = 3,
    /// Vector 18.
    MachineCheck = 4,
}

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();

/// Loads the kernel's GDT and TSS on the boot CPU.
pub fn load() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        let tops = [
            (InterruptStack::Interrupt, stack::INTERRUPT.top()),
            (InterruptStack::Fault, stack::FAULT.top()),
            (InterruptStack::NonMaskable, stack::NMI.top()),
            (InterruptStack::DoubleFault, stack::DOUBLE_FAULT.top()),
            (InterruptStack::MachineCheck, stack::MACHINE_CHECK.top()),
        ];
        for (stack, top) in tops {
            tss.interrupt_stack_table[stack as usize] = VirtAddr::new(top);
        }
        tss
    });
    let mut selectors = None;
    let gdt = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        selectors = Some((code, data, task));
        gdt
    });
    let Some((code, data, task)) = selectors else { return };
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded, which lives for ever: a 64-bit ring-0 code segment, a
    // ring-0 data segment, and the TSS above, which nothing else has loaded.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        load_tss(task);
    }
}
