//! The MADT: processors, interrupt controllers, and the routing of ISA interrupts (ACPI 6.5, 5.2.12).

mod entry;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use derive_more::Display;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use self::entry::Entry;
pub(super) use self::entry::first as first_entry;
use super::interrupt::IntiFlags;
use super::table::{self, HEADER_SIZE, Signature, TableError};
use super::{EntryFlaw, Flaw, InterruptRoute, Signalling};
use ballonet::memory::PhysAddr;

/// The fields before the entries.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMadt {
    local_apic_address: U32,
    flags: U32,
}

/// There are two 8259s beside the APICs.
const PCAT_COMPAT: u32 = 1;

const ENTRIES_OFFSET: usize = HEADER_SIZE + size_of::<RawMadt>();

/// Whether a processor can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum ProcessorState {
    /// It is present.
    #[display("enabled")]
    Enabled,
    /// It may be plugged in later.
    #[display("online capable")]
    OnlineCapable,
    /// It is absent.
    #[display("disabled")]
    Disabled,
}

/// A processor, by its local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processor {
    /// Its ACPI processor UID.
    pub uid: u32,
    /// Its local APIC's ID; above 254 only with x2APIC.
    pub apic_id: u32,
    /// Whether it can be started.
    pub state: ProcessorState,
}

/// An IOAPIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IoApic {
    /// Its APIC ID.
    pub id: u8,
    /// Address of its registers.
    pub address: PhysAddr,
    /// The global system interrupt of its first input. Its version register gives the number of inputs. Even with
    /// [`IoApic::MOST_INPUTS`] inputs, the number after the last fits 32 bits.
    pub gsi_base: u32,
}

impl IoApic {
    /// The highest possible number of inputs: two registers each, of the 240 that an 8-bit index leaves for them.
    pub(crate) const MOST_INPUTS: u32 = 120;
}

/// The local APICs that an entry applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NmiTarget {
    /// All local APICs.
    All,
    /// That of the processor with this ACPI processor UID.
    Uid(u32),
}

/// A local APIC input that is wired to NMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalNmi {
    /// Which local APICs.
    pub target: NmiTarget,
    /// Which input: LINT0 or LINT1.
    pub lint: u8,
    /// How the line signals.
    pub signalling: Signalling,
}

impl LocalNmi {
    /// From the flags of an entry. "Conforms to the bus" means ISA's default for NMI inputs.
    pub(crate) const fn new(target: NmiTarget, lint: u8, flags: u16) -> Self {
        Self { target, lint, signalling: IntiFlags(flags).signalling(Signalling::ISA) }
    }
}

/// An interrupt source override. Where its flags say "conforms to the bus", the signalling depends on the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceOverride {
    irq: u8,
    gsi: u32,
    flags: IntiFlags,
}

impl SourceOverride {
    /// ISA interrupt `irq` arrives at `gsi`; `flags` as in the table.
    pub(crate) const fn new(irq: u8, gsi: u32, flags: u16) -> Self {
        Self { irq, gsi, flags: IntiFlags(flags) }
    }

    /// The ISA interrupt.
    pub(crate) const fn irq(&self) -> u8 {
        self.irq
    }
}

/// The same facts from another table.
pub(crate) struct Interrupts {
    pub(crate) local_apic_address: PhysAddr,
    pub(crate) has_8259: bool,
    pub(crate) processors: Vec<Processor>,
    pub(crate) io_apics: Vec<IoApic>,
    pub(crate) overrides: Vec<SourceOverride>,
    pub(crate) local_nmis: Vec<LocalNmi>,
}

/// The contents of the MADT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Madt {
    /// Address of the local APIC's registers in xAPIC mode.
    pub local_apic_address: PhysAddr,
    /// Whether there are two 8259s, which must then be masked.
    #[doc(alias = "PCAT_COMPAT")]
    pub has_8259: bool,
    /// The processors in the order of the table, which should start with the boot processor. APIC IDs are unique.
    pub processors: Vec<Processor>,
    /// The IOAPICs.
    pub io_apics: Vec<IoApic>,
    overrides: Vec<SourceOverride>,
    /// The lines that raise NMI.
    pub nmi_sources: Vec<InterruptRoute>,
    /// The local APIC inputs that are wired to NMI.
    pub local_nmis: Vec<LocalNmi>,
    /// Flaws of entries, the first few.
    pub flaws: Vec<EntryFlaw>,
}

impl Madt {
    /// The most IOAPICs used: each gets mapped. The largest machines have one per PCI host bridge, some dozens.
    pub(crate) const MOST_IO_APICS: usize = 128;

    /// Parses a MADT. Skips entries of unknown types, and damaged ones, see [`Madt::flaws`].
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let (_, body) = table::open(bytes, Signature::MADT)?;
        let (raw, entries) = table::body::<RawMadt>(body)?;
        let address = u64::from(raw.local_apic_address.get());
        let mut madt = Self {
            local_apic_address: PhysAddr::new(address).ok_or(TableError::Address(address))?,
            has_8259: raw.flags.get() & PCAT_COMPAT != 0,
            processors: Vec::new(),
            io_apics: Vec::new(),
            overrides: Vec::new(),
            nmi_sources: Vec::new(),
            local_nmis: Vec::new(),
            flaws: Vec::new(),
        };
        madt.walk(entries);
        madt.forget_repeated_processors();
        Ok(madt)
    }

    /// Another table's facts in the form of a MADT.
    pub(crate) fn from_interrupts(interrupts: Interrupts) -> Self {
        let Interrupts { local_apic_address, has_8259, processors, io_apics, overrides, local_nmis } = interrupts;
        let (nmi_sources, flaws) = (Vec::new(), Vec::new());
        let mut madt =
            Self { local_apic_address, has_8259, processors, io_apics, overrides, nmi_sources, local_nmis, flaws };
        madt.forget_repeated_processors();
        madt
    }

    /// Where an ISA interrupt arrives: at the GSI of its override, otherwise at the GSI of the same number.
    pub(crate) fn isa_irq(&self, irq: u8) -> InterruptRoute {
        self.route(irq, Signalling::ISA)
    }

    /// Where the ACPI interrupt arrives, given `super::Fadt::sci_interrupt`. It is level-triggered and active low
    /// (ACPI 6.5, 4.8.3.1) unless an override says otherwise.
    pub(crate) fn sci(&self, sci_interrupt: u16) -> InterruptRoute {
        match u8::try_from(sci_interrupt) {
            Ok(irq) => self.route(irq, Signalling::PCI),
            Err(_) => InterruptRoute { gsi: sci_interrupt.into(), signalling: Signalling::PCI },
        }
    }

    fn route(&self, irq: u8, habit: Signalling) -> InterruptRoute {
        match self.overrides.iter().find(|known| known.irq == irq) {
            Some(found) => InterruptRoute { gsi: found.gsi, signalling: found.flags.signalling(habit) },
            None => InterruptRoute { gsi: irq.into(), signalling: habit },
        }
    }

    /// Takes every entry, as far as the lengths are valid.
    fn walk(&mut self, entries: &[u8]) {
        let mut rest = entries;
        while !rest.is_empty() {
            let offset = ENTRIES_OFFSET + (entries.len() - rest.len());
            let bytes = match entry::first(rest) {
                Ok(bytes) => bytes,
                Err(flaw) => return self.note(offset, flaw),
            };
            match Entry::parse(bytes) {
                Ok(entry) => self.take(entry),
                Err(flaw) => self.note(offset, flaw),
            }
            rest = rest.get(bytes.len()..).unwrap_or(&[]);
        }
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Processor(processor) => self.processors.push(processor),
            Entry::IoApic(io_apic) if self.io_apics.len() < Self::MOST_IO_APICS => self.io_apics.push(io_apic),
            Entry::Override(source) => self.overrides.push(source),
            Entry::NmiSource(route) => self.nmi_sources.push(route),
            Entry::LocalNmi(nmi) => self.local_nmis.push(nmi),
            Entry::LocalApicAddress(address) => self.local_apic_address = address,
            Entry::IoApic(_) | Entry::Nothing => {}
        }
    }

    fn note(&mut self, offset: usize, flaw: Flaw) {
        EntryFlaw { table: Signature::MADT, offset, flaw }.note(&mut self.flaws);
    }

    /// Keeps the first processor of each APIC ID, preferring enabled ones: some firmware lists a processor both as
    /// local APIC and as local x2APIC, or adds a placeholder for it.
    fn forget_repeated_processors(&mut self) {
        // So it is nearly everywhere.
        if self.processors.is_sorted_by(|one, next| one.apic_id < next.apic_id) {
            return;
        }
        let is_enabled = |processor: &&Processor| processor.state == ProcessorState::Enabled;
        let mut enabled = BTreeSet::new();
        enabled.extend(self.processors.iter().filter(is_enabled).map(|it| it.apic_id));
        let mut seen = BTreeSet::new();
        self.processors.retain(|processor| {
            let is_hidden = enabled.contains(&processor.apic_id) && !is_enabled(&processor);
            !is_hidden && seen.insert(processor.apic_id)
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{assert_damage_is_refused, parse_every_prefix, table};
    use crate::acpi::{Polarity, Trigger};

    const LEVEL_HIGH: Signalling = Signalling { polarity: Polarity::ActiveHigh, trigger: Trigger::Level };

    fn body(entries: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
        body.extend(entries.concat());
        body
    }

    fn parse(entries: &[&[u8]]) -> Madt {
        Madt::parse(&table(Signature::MADT, 3, &body(entries))).unwrap()
    }

    /// QEMU 10's table for a q35 with two processors and room for a third.
    const Q35: &[&[u8]] = &[
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[0, 8, 2, 2, 2, 0, 0, 0],
        &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 5, 5, 0, 0, 0, 0x0d, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
        &[2, 10, 0, 10, 10, 0, 0, 0, 0x0d, 0],
        &[2, 10, 0, 11, 11, 0, 0, 0, 0x0d, 0],
        &[4, 6, 0xff, 0, 0, 1],
    ];

    #[test]
    fn a_pc_is_read() {
        let madt = parse(Q35);
        assert_eq!(madt.local_apic_address.as_u64(), 0xfee0_0000);
        assert!(madt.has_8259 && madt.flaws.is_empty());
        let states: Vec<_> = madt.processors.iter().map(|cpu| (cpu.uid, cpu.apic_id, cpu.state)).collect();
        assert_eq!(
            states,
            [(0, 0, ProcessorState::Enabled), (1, 1, ProcessorState::Enabled), (2, 2, ProcessorState::OnlineCapable),]
        );
        let address = PhysAddr::new(0xfec0_0000).unwrap();
        assert_eq!(madt.io_apics, [IoApic { id: 0, address, gsi_base: 0 }]);
        assert_eq!(madt.local_nmis, [LocalNmi { target: NmiTarget::All, lint: 1, signalling: Signalling::ISA }]);
    }

    #[test]
    fn isa_interrupts_follow_overrides_and_else_the_habit_of_the_bus() {
        let madt = parse(Q35);
        assert_eq!(madt.isa_irq(0), InterruptRoute { gsi: 2, signalling: Signalling::ISA });
        assert_eq!(madt.isa_irq(4), InterruptRoute { gsi: 4, signalling: Signalling::ISA });
        assert_eq!(madt.isa_irq(10), InterruptRoute { gsi: 10, signalling: LEVEL_HIGH });
        assert_eq!(madt.isa_irq(255), InterruptRoute { gsi: 255, signalling: Signalling::ISA });
    }

    #[test]
    fn the_acpi_interrupt_is_level_low_unless_overridden() {
        assert_eq!(parse(Q35).sci(9), InterruptRoute { gsi: 9, signalling: LEVEL_HIGH });
        assert_eq!(parse(&[]).sci(9), InterruptRoute { gsi: 9, signalling: Signalling::PCI });
        assert_eq!(parse(&[]).sci(300), InterruptRoute { gsi: 300, signalling: Signalling::PCI });
        let conforming: &[u8] = &[2, 10, 0, 9, 20, 0, 0, 0, 0, 0];
        assert_eq!(parse(&[conforming]).sci(9), InterruptRoute { gsi: 20, signalling: Signalling::PCI });
    }

    #[test]
    fn the_first_of_two_overrides_holds_and_other_buses_are_ignored() {
        let entries: &[&[u8]] =
            &[&[2, 10, 1, 4, 30, 0, 0, 0, 0, 0], &[2, 10, 0, 4, 31, 0, 0, 0, 0, 0], &[2, 10, 0, 4, 32, 0, 0, 0, 0, 0]];
        assert_eq!(parse(entries).isa_irq(4).gsi, 31);
    }

    #[test]
    fn a_placeholder_does_not_hide_the_processor_that_it_is_for() {
        let placeholder: &[u8] = &[0, 8, 7, 3, 0, 0, 0, 0];
        let enabled: &[u8] = &[9, 16, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0];
        for entries in [[placeholder, enabled], [enabled, placeholder]] {
            let madt = parse(&entries);
            let found: Vec<_> = madt.processors.iter().map(|cpu| (cpu.uid, cpu.apic_id, cpu.state)).collect();
            assert_eq!(found, [(8, 3, ProcessorState::Enabled)]);
        }
    }

    #[test]
    fn x2apic_entries_reach_beyond_255_and_repeat_no_processor() {
        let madt = parse(&[
            &[0, 8, 7, 3, 1, 0, 0, 0],
            &[0, 8, 9, 0xff, 0, 0, 0, 0],
            &[9, 16, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
            &[9, 16, 0, 0, 0x00, 0x04, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0],
            &[9, 16, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 8, 0, 0, 0],
            &[10, 12, 5, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0],
            &[10, 12, 15, 0, 8, 0, 0, 0, 0, 0, 0, 0],
        ]);
        let ids: Vec<_> = madt.processors.iter().map(|cpu| (cpu.uid, cpu.apic_id)).collect();
        assert_eq!(ids, [(7, 3), (8, 1024)]);
        assert_eq!(
            madt.local_nmis,
            [
                LocalNmi { target: NmiTarget::All, lint: 1, signalling: Signalling::ISA },
                LocalNmi { target: NmiTarget::Uid(8), lint: 0, signalling: Signalling::PCI },
            ]
        );
    }

    #[test]
    fn the_address_override_and_nmi_sources_are_read() {
        let madt = parse(&[&[5, 12, 0, 0, 0, 0, 0xd0, 0xfe, 1, 0, 0, 0], &[3, 8, 0x0f, 0, 23, 0, 0, 0]]);
        assert_eq!(madt.local_apic_address.as_u64(), 0x1_fed0_0000);
        assert_eq!(madt.nmi_sources, [InterruptRoute { gsi: 23, signalling: Signalling::PCI }]);
    }

    #[test]
    fn unknown_and_longer_entries_are_passed_over() {
        let madt = parse(&[&[0x7f, 3, 0], &[0, 10, 5, 6, 1, 0, 0, 0, 9, 9], &[0x0d, 2], &[0, 8, 6, 7, 1, 0, 0, 0]]);
        assert!(madt.flaws.is_empty());
        assert_eq!(madt.processors.len(), 2);
    }

    #[test]
    fn entries_that_cannot_be_are_named() {
        let good: &[u8] = &[0, 8, 0, 0, 1, 0, 0, 0];
        let cases: &[(&[u8], Flaw, usize)] = &[
            (&[0, 0], Flaw::NoLength(0), 1),
            (&[0, 1], Flaw::NoLength(1), 1),
            (&[0, 200], Flaw::CutOff, 1),
            (&[0, 7, 0, 0, 1, 0, 0], Flaw::TooShort { kind: 0, length: 7 }, 2),
            (&[9, 2], Flaw::TooShort { kind: 9, length: 2 }, 2),
            (&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Flaw::Address(0), 2),
            (&[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0xff, 0xff, 0xff, 0xff], Flaw::Interrupts(u32::MAX), 2),
            (&[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0x88, 0xff, 0xff, 0xff], Flaw::Interrupts(u32::MAX - 119), 2),
            (&[5, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], Flaw::Address(1 << 56), 2),
        ];
        for &(bad, flaw, processors) in cases {
            let madt = parse(&[good, bad, &[0, 8, 1, 1, 1, 0, 0, 0]]);
            assert_eq!(madt.flaws, [EntryFlaw { table: Signature::MADT, offset: 52, flaw }]);
            assert_eq!(madt.processors.len(), processors, "after {bad:?}");
        }
        let lone_byte = parse(&[good, &[0]]);
        assert_eq!(lone_byte.flaws, [EntryFlaw { table: Signature::MADT, offset: 52, flaw: Flaw::CutOff }]);
    }

    #[test]
    fn no_more_io_apics_are_taken_than_can_be_mapped_and_none_whose_inputs_have_no_numbers() {
        let last: &[u8] = &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0x87, 0xff, 0xff, 0xff];
        let madt = parse(&[last; 1000]);
        assert_eq!(madt.io_apics.len(), Madt::MOST_IO_APICS);
        assert!(madt.flaws.is_empty());
        assert_eq!(madt.io_apics[0].gsi_base + IoApic::MOST_INPUTS, u32::MAX);
    }

    #[test]
    fn flaws_are_bounded() {
        let madt = parse(&[&[9u8, 2][..]; 1000]);
        assert!((1..100).contains(&madt.flaws.len()));
    }

    #[test]
    fn damage_is_refused() {
        assert_damage_is_refused(&table(Signature::MADT, 3, &body(Q35)), Madt::parse);
        parse_every_prefix(Signature::MADT, &body(Q35), Madt::parse);
    }

    /// What holds of any table with `length` bytes of entries: none is shorter than two bytes, and every interrupt has
    /// a route.
    fn check(madt: &Madt, length: usize) {
        let entries = madt.processors.len() + madt.io_apics.len() + madt.nmi_sources.len() + madt.local_nmis.len();
        assert!(entries + madt.flaws.len() <= length / 2 + 1);
        for irq in 0..=u8::MAX {
            let _ = (madt.isa_irq(irq), madt.sci(u16::from(irq) << 4));
        }
    }

    proptest! {
        #[test]
        fn any_body_is_a_table_or_an_error(body: Vec<u8>) {
            let _ = Madt::parse(&table(Signature::MADT, 3, &body)).map(|madt| check(&madt, body.len()));
        }

        #[test]
        fn any_entries_are_read_or_named(
            entries in prop::collection::vec((0u8..12, prop::collection::vec(any::<u8>(), 0..20)), 0..40),
        ) {
            let entries: Vec<Vec<u8>> = entries
                .into_iter()
                .map(|(kind, rest)| [vec![kind, u8::try_from(rest.len() + 2).unwrap()], rest].concat())
                .collect();
            let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            let madt = parse(&entries);
            check(&madt, entries.iter().map(|entry| entry.len()).sum());
            for flaw in madt.flaws {
                prop_assert!(!matches!(flaw.flaw, Flaw::CutOff | Flaw::NoLength(_)), "{}", flaw);
            }
        }
    }
}
