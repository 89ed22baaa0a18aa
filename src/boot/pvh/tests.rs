//! Start info as QEMU lays it out, and as no loader should.

use proptest::prelude::*;

use super::*;
use crate::boot::area::LoaderArea;
use crate::boot::{BadRange, MemoryImage};

/// Low memory, with the start info where QEMU's option ROM puts it.
struct Machine {
    bytes: Vec<u8>,
}

const START: u64 = 0x8_1000;
const MAP: u64 = 0x8_1100;
const COMMAND_LINE: u64 = 0x8_2000;
const MODULES: u64 = 0x8_3000;

/// What QEMU gives a q35 of 4 GiB: start, length, kind.
const Q35: &[(u64, u64, u32)] = &[
    (0, 0x9_fc00, 1),
    (0x9_fc00, 0x400, 2),
    (0xf_0000, 0x1_0000, 2),
    (0x10_0000, 0x7fed_f000, 1),
    (0x7ffd_f000, 0x2_1000, 2),
    (0xb000_0000, 0x1000_0000, 2),
    (0xfed1_c000, 0x4000, 2),
    (0xfeff_c000, 0x4000, 2),
    (0xfffc_0000, 0x4_0000, 2),
    (0x1_0000_0000, 0x8000_0000, 1),
    (0xfd_0000_0000, 0x3_0000_0000, 2),
];

impl Machine {
    fn new() -> Self {
        let mut machine = Self { bytes: vec![0; 0x9_0000] };
        machine.start_info(|_| {});
        machine.map(Q35);
        machine.place(COMMAND_LINE, b"mode=check log=json\0");
        machine
    }

    fn place(&mut self, address: u64, bytes: &[u8]) {
        self.bytes[usize::try_from(address).unwrap()..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Start info of version 1, changed by `change`.
    fn start_info(&mut self, change: impl Fn(&mut (StartInfo, MapPointer))) {
        let start = StartInfo {
            magic: START_MAGIC.into(),
            version: 1.into(),
            flags: 0.into(),
            module_count: 0.into(),
            module_list: 0.into(),
            command_line: COMMAND_LINE.into(),
            rsdp: 0xf_5a40.into(),
        };
        let pointer =
            MapPointer { address: MAP.into(), count: u32::try_from(Q35.len()).unwrap().into(), reserved: 0.into() };
        let mut both = (start, pointer);
        change(&mut both);
        self.place(START, both.0.as_bytes());
        self.place(START + 40, both.1.as_bytes());
    }

    fn map(&mut self, entries: &[(u64, u64, u32)]) {
        for (index, &(start, length, kind)) in entries.iter().enumerate() {
            let entry = MapEntry { start: start.into(), length: length.into(), kind: kind.into(), reserved: 0.into() };
            self.place(MAP + 24 * index as u64, entry.as_bytes());
        }
    }

    fn parse(&self) -> (Result<BootInfo, PvhError>, Vec<Note>) {
        self.parse_at(START)
    }

    fn parse_at(&self, address: u64) -> (Result<BootInfo, PvhError>, Vec<Note>) {
        let mut notes = Vec::new();
        let memory = MemoryImage::new(PhysAddr::new(0).unwrap(), &self.bytes);
        let info = parse(&memory, PhysAddr::new(address).unwrap(), &mut |note| notes.push(note));
        (info, notes)
    }

    fn info(&self) -> (BootInfo, Vec<Note>) {
        let (info, notes) = self.parse();
        (info.unwrap(), notes)
    }
}

#[test]
fn start_info_of_qemu_is_read_whole() {
    let (info, notes) = Machine::new().info();
    assert_eq!(notes, []);
    assert_eq!(info.protocol, "PVH");
    assert_eq!(info.rsdp, PhysRange::parse(0xf_5a40, 36).ok());
    assert_eq!(info.command_line.as_bytes(), b"mode=check log=json");
    assert_eq!(info.memory_map.regions().len(), Q35.len());
    let usable: Vec<_> = info.memory_map.usable().map(|range| (range.start().as_u64(), range.bytes())).collect();
    assert_eq!(usable, [(0, 0x9_fc00), (0x10_0000, 0x7fed_f000), (0x1_0000_0000, 0x8000_0000)]);
    let areas: Vec<_> = info.areas.iter().map(|area| area.to_string()).collect();
    assert_eq!(areas, ["0x81100-0x81207 memory map", "0x81000-0x81037 start info", "0x82000-0x82013 command line"]);
}

#[test]
fn version_0_has_no_memory_map() {
    let mut machine = Machine::new();
    machine.start_info(|(start, _)| start.version = 0.into());
    // The structure may end where memory does.
    machine.bytes.drain(..);
    let mut short = vec![0; usize::try_from(START).unwrap()];
    short.extend_from_slice(StartInfo { version: 0.into(), command_line: 0.into(), ..start_info() }.as_bytes());
    let (info, notes) = Machine { bytes: short }.info();
    assert_eq!((info.memory_map.regions().len(), notes), (0, vec![Note::NoMemoryMap]));
    assert_eq!(info.areas.iter().next().unwrap().range.bytes(), 40);
}

fn start_info() -> StartInfo {
    let memory = Machine::new();
    MemoryImage::new(PhysAddr::new(0).unwrap(), &memory.bytes).read_value(START).unwrap()
}

#[test]
fn later_versions_are_read_as_version_1() {
    let mut machine = Machine::new();
    machine.start_info(|(start, _)| start.version = 7.into());
    assert_eq!(machine.info().0.memory_map.regions().len(), Q35.len());
}

#[test]
fn what_is_not_there_is_not_given() {
    let mut machine = Machine::new();
    machine.start_info(|(start, pointer)| {
        start.command_line = 0.into();
        start.rsdp = 0.into();
        pointer.address = 0.into();
    });
    let (info, notes) = machine.info();
    assert_eq!((info.command_line.as_bytes(), info.rsdp), (&b""[..], None));
    assert_eq!(notes, [Note::NoMemoryMap]);
}

#[test]
fn a_wrong_magic_number_is_an_error() {
    let machine = Machine::new();
    assert_eq!(machine.parse_at(MAP).0.unwrap_err(), PvhError::Magic(0));
    assert_eq!(machine.parse_at(START + 4).0.unwrap_err().to_string(), "no PVH start info: its magic number is 0x1");
}

#[test]
fn start_info_that_memory_does_not_hold_is_an_error() {
    let mut machine = Machine::new();
    for length in 0..56 {
        machine.bytes.truncate(usize::try_from(START + 56 - length - 1).unwrap());
        assert!(matches!(machine.parse().0, Err(PvhError::Unreadable(_))));
    }
}

#[test]
fn entries_that_are_no_range_are_named_and_skipped() {
    let mut machine = Machine::new();
    machine.map(&[(0x1000, 0, 1), (u64::MAX - 0xfff, 0x2000, 1), (1 << 52, 1, 1)]);
    let (info, notes) = machine.info();
    assert_eq!(
        notes,
        [
            Note::BadEntry { index: 0, start: 0x1000, length: 0, reason: BadRange::Empty },
            Note::BadEntry { index: 1, start: u64::MAX - 0xfff, length: 0x2000, reason: BadRange::TooHigh },
            Note::BadEntry { index: 2, start: 1 << 52, length: 1, reason: BadRange::TooHigh },
        ]
    );
    assert_eq!(info.memory_map.regions().len(), Q35.len() - 3);
}

#[test]
fn an_entry_of_zeros_is_filler() {
    let mut machine = Machine::new();
    machine.map(&[(0, 0, 0)]);
    let (info, notes) = machine.info();
    assert_eq!((info.memory_map.regions().len(), notes), (Q35.len() - 1, vec![]));
}

#[test]
fn overlapping_entries_are_named_and_sorted_out() {
    let mut machine = Machine::new();
    machine.map(&[(0, 0x10_0000, 1)]);
    let (info, notes) = machine.info();
    assert!(matches!(notes[..], [Note::Overlap { .. }]));
    let first = info.memory_map.usable().next().unwrap();
    assert_eq!((first.start().as_u64(), first.end()), (0, 0x9_fc00));
}

#[test]
fn absurd_counts_end_where_memory_does() {
    let mut machine = Machine::new();
    machine.start_info(|(start, pointer)| {
        pointer.count = u32::MAX.into();
        start.module_count = u32::MAX.into();
        start.module_list = (0x9_0000 - 32).into();
    });
    let (info, notes) = machine.info();
    assert_eq!(notes[0], Note::TooManyEntries { count: u32::MAX, considered: MAX_ENTRIES });
    assert!(notes.iter().any(|note| matches!(note, Note::EntryUnreadable { index: 2549, .. })));
    assert!(notes.contains(&Note::TooManyModules { count: u32::MAX, kept: MAX_MODULES }));
    assert!(notes.contains(&Note::BadModule { index: 0, start: 0, length: 0 }));
    assert!(notes.iter().any(|note| matches!(note, Note::ModuleUnreadable { index: 1, .. })));
    assert_eq!(info.memory_map.regions().len(), Q35.len());
}

#[test]
fn pointers_outside_memory_cost_only_what_they_point_to() {
    for address in [0xffff_0000, u64::MAX, u64::MAX - 23, 1 << 52] {
        let mut machine = Machine::new();
        machine.start_info(|(start, pointer)| {
            pointer.address = address.into();
            start.command_line = address.into();
            start.module_list = address.into();
            start.module_count = 1.into();
        });
        let (info, notes) = machine.info();
        assert!(matches!(
            notes[..],
            [
                Note::EntryUnreadable { index: 0, .. },
                Note::CommandLineUnreadable(_),
                Note::ModuleUnreadable { index: 0, .. }
            ]
        ));
        assert_eq!((info.memory_map.regions().len(), info.command_line.as_bytes()), (0, &b""[..]));
        assert_eq!(info.rsdp, PhysRange::parse(0xf_5a40, 36).ok());
    }
}

#[test]
fn a_root_pointer_that_is_no_address_is_named() {
    let mut machine = Machine::new();
    machine.start_info(|(start, _)| start.rsdp = u64::MAX.into());
    let (info, notes) = machine.info();
    assert_eq!((info.rsdp, notes), (None, vec![Note::BadRsdpAddress(u64::MAX)]));
}

#[test]
fn modules_and_start_info_are_areas_to_keep() {
    let mut machine = Machine::new();
    machine.start_info(|(start, _)| {
        start.module_count = 1.into();
        start.module_list = MODULES.into();
    });
    let module =
        ModuleEntry { start: 0x200_0000.into(), length: 0x12_3456.into(), command_line: 0.into(), reserved: 0.into() };
    machine.place(MODULES, module.as_bytes());
    let (info, notes) = machine.info();
    assert_eq!(notes, []);
    let kept: Vec<_> = info.areas.iter().filter(|area| area.kind.is_kept()).map(|area| area.kind).collect();
    assert_eq!(kept, [AreaKind::StartInfo, AreaKind::Module(0)]);
    let range = PhysRange::parse(0x200_0000, 0x12_3456).unwrap();
    assert!(info.areas.iter().any(|area| area == LoaderArea { range, kind: AreaKind::Module(0) }));
}

#[test]
fn the_start_magic_spells_xen3() {
    assert_eq!(START_MAGIC.to_le_bytes().map(|byte| byte & 0x7f), *b"xEn3");
}

proptest! {
    #[test]
    fn any_start_info_is_survived(bytes: [u8; 56], entries: [u8; 240]) {
        let mut machine = Machine::new();
        machine.place(MAP, &entries);
        machine.place(START, &bytes);
        let _ = machine.parse();
        machine.place(START, &START_MAGIC.to_le_bytes());
        prop_assert!(machine.parse().0.is_ok());
    }

    #[test]
    fn any_map_is_survived(entries in prop::collection::vec((any::<u64>(), any::<u64>(), 0u32..9), 0..40)) {
        let mut machine = Machine::new();
        machine.start_info(|(_, pointer)| pointer.count = u32::try_from(entries.len()).unwrap().into());
        machine.map(&entries);
        let (info, _) = machine.info();
        prop_assert!(info.memory_map.usable_bytes() <= 1 << 52);
    }
}
