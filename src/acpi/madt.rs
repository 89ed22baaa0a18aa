//! The MADT: processors, interrupt controllers, and how ISA interrupts are wired (ACPI 6.5, 5.2.12).

mod entry;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use derive_more::Display;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use self::entry::Entry;
use super::interrupt::IntiFlags;
use super::table::{self, HEADER_SIZE, Signature, TableError};
use super::{EntryFlaw, Flaw, InterruptRoute, Signalling};
use crate::memory::PhysAddr;

/// What the table has before its entries.
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
pub enum ProcessorState {
    /// It is there.
    #[display("enabled")]
    Enabled,
    /// It may be plugged in later.
    #[display("online capable")]
    OnlineCapable,
    /// It is not there.
    #[display("disabled")]
    Disabled,
}

/// A processor, by its local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// Its number in ACPI's namespace.
    pub uid: u32,
    /// Its local APIC's ID; above 254 only with x2APIC.
    pub apic_id: u32,
    /// Whether it can be started.
    pub state: ProcessorState,
}

/// An IOAPIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    /// Its APIC ID.
    pub id: u8,
    /// Where its registers are.
    pub address: PhysAddr,
    /// The global system interrupt of its first input. How many inputs there are its version register says.
    pub gsi_base: u32,
}

/// Whose local APIC an entry speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NmiTarget {
    /// Every processor's.
    All,
    /// That of the processor with this number in ACPI's namespace.
    Uid(u32),
}

/// A local APIC's input that is wired to NMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalNmi {
    /// Whose local APIC.
    pub target: NmiTarget,
    /// Which input: LINT0 or LINT1.
    pub lint: u8,
    /// How the line signals.
    pub signalling: Signalling,
}

/// An interrupt source override. How it signals depends on whose interrupt it is, where it conforms to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SourceOverride {
    irq: u8,
    gsi: u32,
    flags: IntiFlags,
}

/// What the MADT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Madt {
    local_apic_address: PhysAddr,
    has_8259: bool,
    processors: Vec<Processor>,
    io_apics: Vec<IoApic>,
    overrides: Vec<SourceOverride>,
    nmi_sources: Vec<InterruptRoute>,
    local_nmis: Vec<LocalNmi>,
    flaws: Vec<EntryFlaw>,
}

impl Madt {
    /// Reads a MADT. Entries of types that are not known are skipped, and so are damaged ones, see [`Madt::flaws`].
    ///
    /// # Errors
    /// When the table is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
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

    /// Where the local APIC's registers are in xAPIC mode.
    pub fn local_apic_address(&self) -> PhysAddr {
        self.local_apic_address
    }

    /// Whether there are two 8259s, which must be masked.
    #[doc(alias = "PCAT_COMPAT")]
    pub fn has_8259(&self) -> bool {
        self.has_8259
    }

    /// The processors, in the order of the table, which should begin with the boot processor. No APIC ID comes twice.
    pub fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// The IOAPICs.
    pub fn io_apics(&self) -> &[IoApic] {
        &self.io_apics
    }

    /// The lines that raise NMI.
    pub fn nmi_sources(&self) -> &[InterruptRoute] {
        &self.nmi_sources
    }

    /// The local APICs' inputs that are wired to NMI.
    pub fn local_nmis(&self) -> &[LocalNmi] {
        &self.local_nmis
    }

    /// What was wrong with entries, the first few.
    pub fn flaws(&self) -> &[EntryFlaw] {
        &self.flaws
    }

    /// Where an ISA interrupt ends: where an override says, else at the GSI of the same number.
    pub fn isa_irq(&self, irq: u8) -> InterruptRoute {
        self.route(irq, Signalling::ISA)
    }

    /// Where the ACPI interrupt ends, given [`super::Fadt::sci_interrupt`]. It is level-triggered and active low
    /// (ACPI 6.5, 4.8.3.1) unless an override says otherwise.
    pub fn sci(&self, sci_interrupt: u16) -> InterruptRoute {
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

    /// Takes every entry, as far as their lengths lead.
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
            Entry::IoApic(io_apic) => self.io_apics.push(io_apic),
            Entry::Override(source) => self.overrides.push(source),
            Entry::NmiSource(route) => self.nmi_sources.push(route),
            Entry::LocalNmi(nmi) => self.local_nmis.push(nmi),
            Entry::LocalApicAddress(address) => self.local_apic_address = address,
            Entry::Nothing => {}
        }
    }

    fn note(&mut self, offset: usize, flaw: Flaw) {
        EntryFlaw { table: Signature::MADT, offset, flaw }.note(&mut self.flaws);
    }

    /// Keeps the first of each APIC ID: some firmware lists a processor as local APIC and again as local x2APIC.
    fn forget_repeated_processors(&mut self) {
        let mut seen = BTreeSet::new();
        self.processors.retain(|processor| seen.insert(processor.apic_id));
    }
}
