//! Page permissions: forbidden accesses fault with the right error code and address; and the contents of the page
//! tables.

use alloc::boxed::Box;
use core::arch::asm;

use crate::machine::paging::{self, Access, DEVICE_BASE};
use crate::machine::{Machine, fault, frames, heap, memory_types, stack};
use x86_64::registers::model_specific::Msr;
use x86_64::structures::paging::PageTableFlags;

use crate::tests::suite::{Skip, Test, kernel_test, tests};
use crate::tests::support::{FETCH, PRESENT, WRITE, assert_page_fault, require_nx};

pub(super) const TESTS: &[Test] = tests![
    writing_to_read_only_data_faults,
    writing_to_code_faults,
    executing_data_faults,
    executing_read_only_data_faults,
    executing_the_heap_faults,
    executing_the_stack_faults,
    executing_page_frames_faults,
    touching_the_guard_page_of_each_stack_faults,
    reading_through_null_faults,
    page_0_is_not_mapped,
    no_page_of_the_image_is_both_writable_and_executable,
    all_usable_memory_is_writable_and_not_executable,
    the_heap_is_writable_and_not_executable,
    every_device_window_is_uncached_and_not_executable,
    a_closed_window_faults,
    pixels_combine_writes_and_registers_do_not,
];

const PAGE: u64 = 4096;
/// The `ret` instruction.
const RET: u8 = 0xC3;

/// Reads a byte in a way that Rust does not check.
fn read(address: u64) {
    // SAFETY: either it faults, or it reads a byte and discards it.
    unsafe { asm!("mov {value}, byte ptr [{address}]", address = in(reg) address, value = out(reg_byte) _) };
}

/// Writes back the byte that is there.
fn rewrite(address: u64) {
    // SAFETY: either it faults, or memory stays unchanged.
    unsafe { asm!("or byte ptr [{address}], 0", address = in(reg) address) };
}

/// Writes a zero where nothing is mapped.
fn write(address: u64) {
    // SAFETY: called only for addresses where nothing is mapped.
    unsafe { asm!("mov byte ptr [{address}], 0", address = in(reg) address) };
}

/// Jumps to memory that holds a `ret`.
fn call(address: u64) {
    // SAFETY: either it faults, or it returns at once.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) };
}

/// How the page of an address is mapped.
fn flags(address: u64) -> Option<PageTableFlags> {
    paging::with(|space| space.lookup(address)).map(|(_, flags)| flags)
}

fn is_writable(flags: PageTableFlags) -> bool {
    flags.contains(PageTableFlags::WRITABLE)
}

fn is_executable(flags: PageTableFlags) -> bool {
    !flags.contains(PageTableFlags::NO_EXECUTE)
}

kernel_test! {
    fn writing_to_read_only_data_faults(context) {
        static CONSTANT: [u8; 4] = *b"text";
        let address = CONSTANT.as_ptr() as u64;
        assert!(context.machine.image().rodata().contains(&address));
        assert_page_fault(address, PRESENT | WRITE, || rewrite(address));
    }
}

kernel_test! {
    fn writing_to_code_faults(context) {
        let address = rewrite as *const () as u64;
        assert!(context.machine.image().text().contains(&address));
        assert_page_fault(address, PRESENT | WRITE, || rewrite(address));
    }
}

kernel_test! {
    fn executing_data_faults(context) {
        require_nx(&context.machine.features)?;
        static mut CODE: u8 = RET;
        let address = &raw const CODE as u64;
        assert!(context.machine.image().data().contains(&address));
        assert_page_fault(address, PRESENT | FETCH, || call(address));
    }
}

kernel_test! {
    fn executing_read_only_data_faults(context) {
        require_nx(&context.machine.features)?;
        static CODE: [u8; 1] = [RET];
        let address = CODE.as_ptr() as u64;
        assert!(context.machine.image().rodata().contains(&address));
        assert_page_fault(address, PRESENT | FETCH, || call(address));
    }
}

kernel_test! {
    fn executing_the_heap_faults(context) {
        require_nx(&context.machine.features)?;
        let code = Box::new(RET);
        let address = &raw const *code as u64;
        assert!((paging::HEAP_BASE..paging::HEAP_LIMIT).contains(&address));
        assert_page_fault(address, PRESENT | FETCH, || call(address));
    }
}

kernel_test! {
    fn executing_the_stack_faults(context) {
        require_nx(&context.machine.features)?;
        let code = [RET; 16];
        let address = core::hint::black_box(&code).as_ptr() as u64;
        assert!(fault::is_on_stack(address, 16));
        assert_page_fault(address, PRESENT | FETCH, || call(address));
    }
}

kernel_test! {
    fn executing_page_frames_faults(context) {
        require_nx(&context.machine.features)?;
        let run = frames::allocate(1, 1).expect("a frame is free");
        let address = run.address();
        // SAFETY: the frame belongs to this test.
        unsafe { (address as *mut u8).write(RET) };
        assert_page_fault(address, PRESENT | FETCH, || call(address));
        frames::free(run).expect("it was allocated");
    }
}

kernel_test! {
    fn touching_the_guard_page_of_each_stack_faults() {
        for guard in stack::guards() {
            for address in [guard, guard + PAGE / 2, guard + PAGE - 1] {
                assert_page_fault(address, 0, || read(address));
                assert_page_fault(address, WRITE, || write(address));
            }
        }
    }
}

kernel_test! {
    fn reading_through_null_faults() {
        for address in [0, 8, PAGE - 1] {
            assert_page_fault(address, 0, || read(address));
        }
    }
}

kernel_test! {
    fn page_0_is_not_mapped() {
        assert_eq!(flags(0), None);
    }
}

kernel_test! {
    fn no_page_of_the_image_is_both_writable_and_executable(context) {
        require_nx(&context.machine.features)?;
        let image = *context.machine.image();
        for address in image.all().step_by(PAGE as usize) {
            if stack::guards().contains(&address) {
                assert_eq!(flags(address), None, "guard page {address:#x}");
                continue;
            }
            let flags = flags(address).unwrap_or_else(|| panic!("{address:#x} of the image is not mapped"));
            assert_eq!(is_executable(flags), image.text().contains(&address), "{address:#x}: {flags:?}");
            assert_eq!(is_writable(flags), image.data().contains(&address), "{address:#x}: {flags:?}");
        }
    }
}

kernel_test! {
    fn all_usable_memory_is_writable_and_not_executable(context) {
        let nx = context.machine.features.nx;
        let image = context.machine.image().place();
        for range in context.machine.boot_info().memory_map.usable() {
            let mut address = range.start().as_u64().next_multiple_of(PAGE).max(PAGE);
            while address + PAGE <= range.end() {
                if image.contains(&address) {
                    address = image.end;
                    continue;
                }
                let found = paging::with(|space| space.lookup(address));
                let (size, flags) = found.unwrap_or_else(|| panic!("{address:#x} is usable and not mapped"));
                assert!(is_writable(flags) && !(nx && is_executable(flags)), "{address:#x}: {flags:?}");
                address = (address / size + 1) * size;
            }
        }
    }
}

kernel_test! {
    fn the_heap_is_writable_and_not_executable(context) {
        require_nx(&context.machine.features)?;
        let size = heap::view().size as u64;
        for address in (paging::HEAP_BASE..paging::HEAP_BASE + size).step_by(PAGE as usize) {
            let flags = flags(address).unwrap_or_else(|| panic!("{address:#x} of the heap is not mapped"));
            assert!(is_writable(flags) && !is_executable(flags), "{address:#x}: {flags:?}");
        }
        assert_eq!(flags(paging::HEAP_BASE + size), None, "behind the heap nothing is mapped");
    }
}

/// Both bits choose entry 3 of the page attribute table, which is uncacheable.
const UNCACHED: PageTableFlags = PageTableFlags::NO_CACHE.union(PageTableFlags::WRITE_THROUGH);

kernel_test! {
    fn every_device_window_is_uncached_and_not_executable(context) {
        let nx = context.machine.features.nx;
        // Windows are consecutive, some of them closed; there are none above the last one ever opened.
        const SEARCHED: u64 = 1 << 30;
        let mut found = 0;
        let mut address = DEVICE_BASE;
        while address < DEVICE_BASE + SEARCHED {
            let Some((size, flags)) = paging::with(|space| space.lookup(address)) else {
                address += PAGE;
                continue;
            };
            assert!(flags.contains(UNCACHED) && !(nx && is_executable(flags)), "{address:#x}: {flags:?}");
            found += 1;
            address = (address / size + 1) * size;
        }
        let windows = paging::with(|space| space.windows());
        assert!(found >= windows, "{windows} windows are open, {found} pages of windows are mapped");
    }
}

kernel_test! {
    fn a_closed_window_faults(context) {
        let address = local_apic_address(&context.machine);
        let mut tables = frames::ForTables;
        let window = paging::with(|space| space.open_window(address, 64, Access::Device, &mut tables)).expect("room");
        let start = window.as_ptr() as u64;
        assert!(flags(start).is_some_and(|flags| flags.contains(UNCACHED)));
        read(start);
        paging::with(|space| space.close_window(window, 64));
        assert_page_fault(start, 0, || read(start));
    }
}

/// Device registers that can be read without effect.
fn local_apic_address(machine: &Machine) -> u64 {
    let madt = machine.acpi.as_ref().and_then(|acpi| acpi.madt.as_ref());
    madt.map_or(0xFEE0_0000, |madt| madt.local_apic_address.as_u64())
}

kernel_test! {
    fn pixels_combine_writes_and_registers_do_not(context) {
        if !context.machine.features.pat {
            return Err(Skip::because("the CPU has no page attribute table"));
        }
        // SAFETY: the CPU has the table; reading it has no effect.
        let table = unsafe { Msr::new(0x277).read() };
        assert_eq!(table, memory_types::PAGE_ATTRIBUTES);
        // Nothing responds there, and nothing accesses it.
        let place = (context.machine.acpi.as_ref().and_then(|acpi| acpi.madt.as_ref()))
            .and_then(|madt| Some(madt.io_apics.first()?.address.as_u64()))
            .ok_or(Skip::because("there is no IOAPIC whose address is surely not memory's"))?;
        for (access, kind) in [(Access::Framebuffer, 1), (Access::Device, 0)] {
            let window = paging::with(|space| space.open_window(place, PAGE, access, &mut frames::ForTables))
                .expect("the IOAPIC can be mapped");
            let flags = flags(window.as_ptr() as u64).expect("a window is mapped");
            let entry = u32::from(flags.contains(PageTableFlags::WRITE_THROUGH))
                | u32::from(flags.contains(PageTableFlags::NO_CACHE)) << 1;
            assert_eq!(table >> (8 * entry) & 0xFF, kind, "{access:?}");
            paging::with(|space| space.close_window(window, PAGE));
        }
    }
}
