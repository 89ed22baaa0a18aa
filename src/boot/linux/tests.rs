//! Zero pages as loaders lay them out, and as no loader should.

use super::*;
use crate::boot::MemoryImage;

const PAGE: u64 = 0x7000;
const LINE: u64 = 0x2_0000;

/// Low memory, with the zero page and the command line where Firecracker and crosvm put them.
struct Machine {
    bytes: Vec<u8>,
}

impl Machine {
    /// A machine of 512 MiB, with an RSDP, a ramdisk and a command line.
    fn new() -> Self {
        let mut machine = Self { bytes: vec![0; 0x3_0000] };
        machine.put(0x202, b"HdrS");
        machine.put(0x70, &0xE_0000_u64.to_le_bytes());
        machine.put(0x228, &u32::try_from(LINE).unwrap().to_le_bytes());
        machine.put(0x218, &0x100_0000_u32.to_le_bytes());
        machine.put(0x21C, &0x2000_u32.to_le_bytes());
        machine.map(&[(0, 0x9_FC00, 1), (0x10_0000, 0x1FF0_0000, 1), (0xE000_0000, 0x1000_0000, 2)]);
        machine.place(LINE, b"log=json\0");
        machine
    }

    fn place(&mut self, address: u64, bytes: &[u8]) {
        self.bytes[usize::try_from(address).unwrap()..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Writes at an offset of the zero page.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.place(PAGE + offset, bytes);
    }

    fn map(&mut self, entries: &[(u64, u64, u32)]) {
        self.put(0x1E8, &[u8::try_from(entries.len()).unwrap()]);
        for (index, &(start, length, kind)) in entries.iter().enumerate() {
            let entry = [&start.to_le_bytes()[..], &length.to_le_bytes(), &kind.to_le_bytes()].concat();
            self.put(0x2D0 + 20 * index as u64, &entry);
        }
    }

    /// A framebuffer of 1024 x 768 pixels of 32 bits.
    fn screen(&mut self, kind: u8) {
        self.put(0x0F, &[kind]);
        for (offset, value) in [(0x12, 1024_u16), (0x14, 768), (0x16, 32), (0x24, 4096)] {
            self.put(offset, &value.to_le_bytes());
        }
        self.put(0x18, &0xFD00_0000_u32.to_le_bytes());
        self.put(0x26, &[8, 16, 8, 8, 8, 0, 8, 24]);
    }

    fn parse(&self) -> (Result<BootInfo, LinuxError>, Vec<Note>) {
        let mut notes = Vec::new();
        let memory = MemoryImage::new(PhysAddr::new(0).unwrap(), &self.bytes);
        let info = parse(&memory, PhysAddr::new(PAGE).unwrap(), &mut |note| notes.push(note));
        (info, notes)
    }

    fn info(&self) -> (BootInfo, Vec<Note>) {
        let (info, notes) = self.parse();
        (info.unwrap(), notes)
    }
}

#[test]
fn a_zero_page_is_read_whole() {
    let (info, notes) = Machine::new().info();
    assert_eq!(notes, []);
    assert_eq!(info.command_line.as_bytes(), b"log=json");
    assert_eq!(info.rsdp, PhysRange::parse(0xE_0000, 36).ok());
    let usable: Vec<_> = info.memory_map.usable().map(|range| (range.start().as_u64(), range.bytes())).collect();
    assert_eq!(usable, [(0, 0x9_FC00), (0x10_0000, 0x1FF0_0000)]);
    assert_eq!(info.memory_map.regions().len(), 3);
    let areas: Vec<_> = info.areas.iter().map(|area| area.to_string()).collect();
    assert_eq!(areas, ["0x7000-0x7fff start info", "0x20000-0x20008 command line", "0x1000000-0x1001fff module 0"]);
    assert!(info.framebuffer.is_none() && info.efi.is_none());
}

#[test]
fn a_page_without_the_magic_number_is_refused() {
    let mut machine = Machine::new();
    machine.put(0x202, b"HdrX");
    assert!(matches!(machine.parse().0, Err(LinuxError::Magic(_))));
    machine.bytes.truncate(usize::try_from(PAGE).unwrap() + 0x200);
    assert!(matches!(machine.parse().0, Err(LinuxError::Unreadable(_))));
}

#[test]
fn no_more_entries_are_read_than_there_is_room_for() {
    let mut machine = Machine::new();
    let entries: Vec<_> = (0..128).map(|index| (index * 0x2000, 0x1000, 1)).collect();
    machine.map(&entries);
    assert_eq!((machine.info().0.memory_map.usable().count(), machine.info().1), (128, vec![]));
    // Entry 129 would be what follows the table.
    machine.put(0x2D0 + 20 * 128, &[0xFF; 20]);
    for count in [129, 255] {
        machine.put(0x1E8, &[count]);
        let (info, notes) = machine.info();
        assert_eq!(info.memory_map.usable().count(), 128);
        assert_eq!(notes, [Note::TooManyEntries { count: count.into(), considered: 128 }]);
    }
    machine.put(0x1E8, &[0]);
    assert_eq!(machine.info().1, [Note::NoMemoryMap]);
}

#[test]
fn impossible_entries_are_skipped_and_named() {
    let mut machine = Machine::new();
    machine.map(&[(u64::MAX - 5, 0x1000, 1), (0x1000, 0, 1), (0x10_0000, 0x1000, 1)]);
    let (info, notes) = machine.info();
    assert_eq!(info.memory_map.usable_bytes(), 0x1000);
    assert!(matches!(notes[..], [Note::BadEntry { index: 0, .. }, Note::BadEntry { index: 1, .. }]), "{notes:?}");
}

#[test]
fn a_map_that_runs_out_of_memory_ends_there() {
    let mut machine = Machine::new();
    machine.bytes.truncate(usize::try_from(PAGE + MAP).unwrap() + 20);
    machine.put(0x228, &[0; 4]);
    let (info, notes) = machine.info();
    assert_eq!(info.memory_map.usable_bytes(), 0x9_FC00);
    assert!(matches!(notes[..], [Note::EntryUnreadable { index: 1, .. }]), "{notes:?}");
}

#[test]
fn a_command_line_without_an_end_is_cut() {
    let mut machine = Machine::new();
    machine.place(LINE, &[b'x'; CommandLine::CAPACITY + 1]);
    let (info, notes) = machine.info();
    assert_eq!(info.command_line.as_bytes().len(), CommandLine::CAPACITY);
    assert_eq!(notes, [Note::CommandLineTruncated { capacity: CommandLine::CAPACITY }]);
    // Beyond memory, by the high half of the address.
    machine.put(0xC8, &1_u32.to_le_bytes());
    let (info, notes) = machine.info();
    assert!(info.command_line.as_bytes().is_empty());
    assert!(matches!(notes[..], [Note::CommandLineUnreadable(_)]), "{notes:?}");
    // None at all.
    machine.put(0xC8, &[0; 4]);
    machine.put(0x228, &[0; 4]);
    assert_eq!(machine.info().1, []);
}

#[test]
fn addresses_that_are_none_are_skipped_and_named() {
    let mut machine = Machine::new();
    machine.put(0x70, &u64::MAX.to_le_bytes());
    machine.put(0xC0, &u32::MAX.to_le_bytes());
    let (info, notes) = machine.info();
    assert!(info.rsdp.is_none());
    let expected = Note::BadModule { index: 0, start: 0xFFFF_FFFF_0100_0000, length: 0x2000 };
    assert_eq!(notes, [expected, Note::BadRsdpAddress(u64::MAX)]);
}

#[test]
fn a_framebuffer_is_taken_from_vesa_and_from_uefi() {
    let mut machine = Machine::new();
    for kind in [0x23, 0x70] {
        machine.screen(kind);
        let found = machine.info().0.framebuffer.unwrap();
        assert_eq!((found.address, found.pitch, found.width, found.height), (0xFD00_0000, 4096, 1024, 768));
        let channel = |position| Channel { position, width: 8 };
        assert_eq!(found.format, PixelFormat::Rgb([channel(16), channel(8), channel(0)]));
    }
    // The high half of the address counts only where the capability says so.
    machine.put(0x3A, &2_u32.to_le_bytes());
    assert_eq!(machine.info().0.framebuffer.unwrap().address, 0xFD00_0000);
    machine.put(0x36, &2_u32.to_le_bytes());
    assert_eq!(machine.info().0.framebuffer.unwrap().address, 0x2_FD00_0000);
    // Text mode is none, an impossible one is named.
    machine.screen(1);
    assert_eq!((machine.info().0.framebuffer, machine.info().1), (None, vec![]));
    machine.screen(0x23);
    machine.put(0x24, &[0; 2]);
    let (info, notes) = machine.info();
    assert!(info.framebuffer.is_none() && matches!(notes[..], [Note::BadFramebuffer(Some(_))]), "{notes:?}");
}

#[test]
fn the_system_table_of_uefi_is_found_by_its_signature() {
    let mut machine = Machine::new();
    machine.put(0x1C4, &0x1234_5000_u32.to_le_bytes());
    machine.put(0x1D8, &1_u32.to_le_bytes());
    assert_eq!(machine.info().0.efi, None);
    for (signature, wide) in [(b"EL64", true), (b"EL32", false)] {
        machine.put(0x1C0, signature);
        assert_eq!(machine.info().0.efi, Some(EfiSystemTable { address: 0x1_1234_5000, wide }));
    }
}
