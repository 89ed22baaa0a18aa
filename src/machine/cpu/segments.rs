//! The GDT and the task state segment: in long mode, little more than the table of interrupt stacks.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::machine::cpu::stack::Tops;

/// Which interrupt stack a gate switches to: an index into the TSS's table (SDM vol. 3, 7.14.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum InterruptStack {
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

/// The descriptor tables of a CPU.
pub(crate) struct Segments {
    task: Once<TaskStateSegment>,
    table: Once<GlobalDescriptorTable>,
}

impl Segments {
    pub(crate) const fn new() -> Self {
        Self { task: Once::new(), table: Once::new() }
    }

    /// Loads them on the current CPU, to which they belong, with these interrupt stacks.
    pub(crate) fn load(&'static self, tops: &Tops) {
        let task = self.task.call_once(|| {
            let mut task = TaskStateSegment::new();
            let tops = [
                (InterruptStack::Interrupt, tops.interrupt),
                (InterruptStack::Fault, tops.fault),
                (InterruptStack::NonMaskable, tops.nmi),
                (InterruptStack::DoubleFault, tops.double_fault),
                (InterruptStack::MachineCheck, tops.machine_check),
            ];
            for (stack, top) in tops {
                task.interrupt_stack_table[stack as usize] = VirtAddr::new(top);
            }
            task
        });
        let mut selectors = None;
        let table = self.table.call_once(|| {
            let mut table = GlobalDescriptorTable::new();
            let code = table.append(Descriptor::kernel_code_segment());
            let data = table.append(Descriptor::kernel_data_segment());
            let task = table.append(Descriptor::tss_segment(task));
            selectors = Some((code, data, task));
            table
        });
        let Some((code, data, task)) = selectors else { return };
        table.load();
        // SAFETY: the selectors are those of the table just loaded, which lives permanently: a 64-bit ring-0 code
        // segment, a ring-0 data segment, and the TSS above, which nothing else has loaded. GS is left alone.
        unsafe {
            CS::set_reg(code);
            SS::set_reg(data);
            load_tss(task);
        }
    }
}
