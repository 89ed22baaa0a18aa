//! The layout and meaning of the MADT's entries.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{IoApic, LocalNmi, NmiTarget, Processor, ProcessorState, SourceOverride};
use crate::acpi::interrupt::{InterruptRoute, IntiFlags, Signalling};
use crate::acpi::problem::Flaw;
use ballonet::memory::PhysAddr;

/// A parsed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Processor(Processor),
    IoApic(IoApic),
    Override(SourceOverride),
    NmiSource(InterruptRoute),
    LocalNmi(LocalNmi),
    LocalApicAddress(PhysAddr),
    /// Of an unknown type, or about something that does not exist.
    Nothing,
}

/// The first entry of `entries` with its header: at least two bytes.
pub(in crate::acpi) fn first(entries: &[u8]) -> Result<&[u8], Flaw> {
    let length = *entries.get(1).ok_or(Flaw::CutOff)?;
    if length < 2 {
        return Err(Flaw::NoLength(length));
    }
    entries.get(..length.into()).ok_or(Flaw::CutOff)
}

impl Entry {
    /// Parses an entry; its first byte is its type, its second its length.
    pub(super) fn parse(entry: &[u8]) -> Result<Self, Flaw> {
        Ok(match entry.first() {
            Some(0) => processor(&raw::<LocalApic>(entry)?),
            Some(1) => Self::IoApic(io_apic(&raw(entry)?)?),
            Some(2) => source_override(&raw::<InterruptSourceOverride>(entry)?),
            Some(3) => nmi_source(&raw::<NmiSource>(entry)?),
            Some(4) => local_apic_nmi(&raw::<LocalApicNmi>(entry)?),
            Some(5) => address_override(&raw::<LocalApicAddressOverride>(entry)?)?,
            Some(9) => x2apic_processor(&raw::<LocalX2Apic>(entry)?),
            Some(10) => x2apic_nmi(&raw::<LocalX2ApicNmi>(entry)?),
            _ => Self::Nothing,
        })
    }
}

/// The entry as a structure. Tables of later specifications may have longer entries.
fn raw<T: FromBytes>(entry: &[u8]) -> Result<T, Flaw> {
    let kind = entry.first().copied().unwrap_or_default();
    T::read_from_prefix(entry).map(|(raw, _)| raw).map_err(|_| Flaw::TooShort { kind, length: entry.len() })
}

/// Type 0.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalApic {
    head: [u8; 2],
    uid: u8,
    apic_id: u8,
    flags: U32,
}

fn processor(raw: &LocalApic) -> Entry {
    // An ID of all ones is the broadcast address, which no processor has: firmware puts it into unused entries.
    match raw.apic_id {
        u8::MAX => Entry::Nothing,
        id => Entry::Processor(Processor { uid: raw.uid.into(), apic_id: id.into(), state: state(raw.flags.get()) }),
    }
}

/// Type 9.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalX2Apic {
    head: [u8; 2],
    reserved: U16,
    apic_id: U32,
    flags: U32,
    uid: U32,
}

fn x2apic_processor(raw: &LocalX2Apic) -> Entry {
    match raw.apic_id.get() {
        u32::MAX => Entry::Nothing,
        apic_id => Entry::Processor(Processor { uid: raw.uid.get(), apic_id, state: state(raw.flags.get()) }),
    }
}

/// Local APIC flags (ACPI 6.5, table 5.23). *Online capable* has no meaning if *enabled* is set.
const fn state(flags: u32) -> ProcessorState {
    match flags & 3 {
        0 => ProcessorState::Disabled,
        2 => ProcessorState::OnlineCapable,
        _ => ProcessorState::Enabled,
    }
}

/// Type 1.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIoApic {
    head: [u8; 2],
    id: u8,
    reserved: u8,
    address: U32,
    gsi_base: U32,
}

fn io_apic(raw: &RawIoApic) -> Result<IoApic, Flaw> {
    let (address, gsi_base) = (address(raw.address.get().into())?, raw.gsi_base.get());
    // The number after the last input must not overflow either.
    gsi_base.checked_add(IoApic::MOST_INPUTS).ok_or(Flaw::Interrupts(gsi_base))?;
    Ok(IoApic { id: raw.id, address, gsi_base })
}

/// Type 2.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct InterruptSourceOverride {
    head: [u8; 2],
    bus: u8,
    source: u8,
    gsi: U32,
    flags: U16,
}

fn source_override(raw: &InterruptSourceOverride) -> Entry {
    // Bus 0 is ISA; there is no other bus.
    match raw.bus {
        0 => Entry::Override(SourceOverride { irq: raw.source, gsi: raw.gsi.get(), flags: IntiFlags(raw.flags.get()) }),
        _ => Entry::Nothing,
    }
}

/// Type 3.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NmiSource {
    head: [u8; 2],
    flags: U16,
    gsi: U32,
}

fn nmi_source(raw: &NmiSource) -> Entry {
    let signalling = IntiFlags(raw.flags.get()).signalling(Signalling::ISA);
    Entry::NmiSource(InterruptRoute { gsi: raw.gsi.get(), signalling })
}

/// Type 4.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalApicNmi {
    head: [u8; 2],
    uid: u8,
    flags: U16,
    lint: u8,
}

fn local_apic_nmi(raw: &LocalApicNmi) -> Entry {
    let target = if raw.uid == u8::MAX { NmiTarget::All } else { NmiTarget::Uid(raw.uid.into()) };
    local_nmi(target, raw.lint, raw.flags.get())
}

/// Type 10.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalX2ApicNmi {
    head: [u8; 2],
    flags: U16,
    uid: U32,
    lint: u8,
    reserved: [u8; 3],
}

fn x2apic_nmi(raw: &LocalX2ApicNmi) -> Entry {
    let target = if raw.uid.get() == u32::MAX { NmiTarget::All } else { NmiTarget::Uid(raw.uid.get()) };
    local_nmi(target, raw.lint, raw.flags.get())
}

fn local_nmi(target: NmiTarget, lint: u8, flags: u16) -> Entry {
    // A local APIC has two such inputs.
    match lint {
        0 | 1 => Entry::LocalNmi(LocalNmi { target, lint, signalling: IntiFlags(flags).signalling(Signalling::ISA) }),
        _ => Entry::Nothing,
    }
}

/// Type 5.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocalApicAddressOverride {
    head: [u8; 2],
    reserved: U16,
    address: U64,
}

fn address_override(raw: &LocalApicAddressOverride) -> Result<Entry, Flaw> {
    Ok(Entry::LocalApicAddress(address(raw.address.get())?))
}

/// An address of registers; these are never at the bottom of memory.
fn address(value: u64) -> Result<PhysAddr, Flaw> {
    PhysAddr::new(value).filter(|address| address.as_u64() != 0).ok_or(Flaw::Address(value))
}
