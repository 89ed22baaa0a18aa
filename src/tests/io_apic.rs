//! The IOAPICs and the PICs that they replace: unused lines are masked, a routed line arrives.

use alloc::vec::Vec;

use crate::acpi::InterruptRoute;
use crate::machine::{Machine, io_apic, local_apic, vectors};
use x86_64::instructions::port::{Port, PortWriteOnly};

use crate::tests::suite::{Skip, Test, kernel_test, tests};
use crate::tests::support::{Counter, MASKED, pass, wait_until};

pub(super) const TESTS: &[Test] = tests![
    unused_lines_are_masked,
    both_pics_are_fully_masked,
    a_line_arrives_where_the_madt_routes_it_until_it_is_masked,
];

/// Lines that are open before any driver has attached.
const LISTENED_TO: [&str; 2] = ["serial", "keyboard"];

kernel_test! {
    fn unused_lines_are_masked() {
        if io_apic::end() == 0 {
            return Err(Skip::because("there is no IOAPIC"));
        }
        let owners: Vec<_> = vectors::views().collect();
        let mut open = Vec::new();
        for gsi in (0..io_apic::end()).filter(|&gsi| io_apic::has(gsi)) {
            let entry = io_apic::entry(gsi).expect("it has the line");
            if entry & MASKED == 0 {
                let owner = owners.iter().find(|view| view.vector == entry as u8).map_or("", |view| view.name.as_str());
                assert!(LISTENED_TO.contains(&owner), "GSI {gsi} is open to `{owner}`");
                assert!(!open.contains(&owner), "GSI {gsi} is open to `{owner}`, and so is another line");
                open.push(owner);
            }
        }
    }
}

kernel_test! {
    fn both_pics_are_fully_masked() {
        for port in [0x21, 0xA1] {
            // SAFETY: reads a PIC's mask, without effect; all ones if there is no PIC.
            assert_eq!(unsafe { Port::<u8>::new(port).read() }, 0xFF, "port {port:#x}");
        }
    }
}

/// Channel 0 of the 8254, running: it interrupts on ISA line 0. Dropping this stops it.
struct Pit;

impl Pit {
    const COMMAND: u16 = 0x43;
    const CHANNEL_0: u16 = 0x40;
    /// Channel 0, low then high byte, rate generator, binary.
    const RATE: u8 = 0b0011_0100;
    /// Channel 0, low then high byte, one-shot: without a count it does not run.
    const ONE_SHOT: u8 = 0b0011_0000;
    const HZ: u32 = 1_193_182;

    fn start(hz: u32) -> Self {
        let [low, high, ..] = (Self::HZ / hz).to_le_bytes();
        // SAFETY: nothing else uses channel 0; only these tests route its line.
        unsafe {
            PortWriteOnly::<u8>::new(Self::COMMAND).write(Self::RATE);
            let mut data = PortWriteOnly::<u8>::new(Self::CHANNEL_0);
            data.write(low);
            data.write(high);
        }
        Self
    }

    /// Whether there is an 8254: its counter moves.
    fn is_present(&self) -> bool {
        // SAFETY: channel 0 belongs to this test; latches and reads its count.
        let read = || unsafe {
            PortWriteOnly::<u8>::new(Self::COMMAND).write(0);
            let mut data = Port::<u8>::new(Self::CHANNEL_0);
            u16::from_le_bytes([data.read(), data.read()])
        };
        let first = read();
        (0..1000).any(|_| read() != first)
    }
}

impl Drop for Pit {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { PortWriteOnly::<u8>::new(Self::COMMAND).write(Self::ONE_SHOT) };
    }
}

/// Where ISA line 0 arrives. On a PC that is input 2, according to an override in the MADT. QEMU's microvm has the
/// routing but not the override.
fn timer_route(machine: &Machine) -> Result<InterruptRoute, Skip> {
    let madt = machine.acpi.as_ref().and_then(|acpi| acpi.madt.as_ref());
    let route = madt.map(|madt| madt.isa_irq(0)).ok_or_else(|| Skip::because("there is no MADT"))?;
    if route.gsi == 0 {
        return Err(Skip::because("the MADT has no override for ISA line 0, which is not at input 0 on any PC"));
    }
    if io_apic::has(route.gsi) { Ok(route) } else { Err(Skip::because("no IOAPIC has ISA line 0")) }
}

kernel_test! {
    fn a_line_arrives_where_the_madt_routes_it_until_it_is_masked(context) {
        let route = timer_route(&context.machine)?;
        let pit = Pit::start(1000);
        if !pit.is_present() {
            return Err(Skip::because("there is no 8254"));
        }
        let counter = Counter::new("pit");
        let id = local_apic::id().try_into().map_err(|_| Skip::because("the IOAPIC cannot name this CPU"))?;
        io_apic::route(route, counter.vector, id).expect("it has the line");
        counter.wait_for(5);

        io_apic::set_masked(route.gsi, true).expect("it has the line");
        // An interrupt may have been under way.
        pass(5_000_000);
        let masked = counter.count();
        pass(30_000_000);
        assert_eq!(counter.count(), masked, "a masked line interrupts");

        io_apic::set_masked(route.gsi, false).expect("it has the line");
        wait_until(|| counter.count() > masked + 3);
        io_apic::set_masked(route.gsi, true).expect("it has the line");
        assert_eq!(vectors::counted(counter.vector), counter.count());
        pass(5_000_000);
    }
}
