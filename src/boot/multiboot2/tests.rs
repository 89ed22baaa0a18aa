//! Boot information as the `multiboot2` crate builds it, and as no loader should.

use multiboot2::{
    Builder, CommandLineTag, EFIMemoryMapTag, EFISdt32Tag, EFISdt64Tag, FramebufferColor, FramebufferField,
    FramebufferTag as BuiltFramebuffer, FramebufferType, MaybeDynSized, MemoryArea, MemoryMapTag, ModuleTag, RsdpV1Tag,
    RsdpV2Tag,
};
use proptest::prelude::*;

use super::*;
use crate::boot::{BadRange, MemoryImage};

const START: u64 = 0x1_0000;

/// What SeaBIOS gives a q35 of 512 MiB: start, length, kind.
const Q35: &[(u64, u64, u32)] = &[
    (0, 0x9_fc00, 1),
    (0x9_fc00, 0x400, 2),
    (0xf_0000, 0x1_0000, 2),
    (0x10_0000, 0x1fee_0000, 1),
    (0x1ffe_0000, 0x2_0000, 2),
];

/// Entries of an EFI memory map, as OVMF has them: start, pages, kind; 48 bytes each.
fn efi_map(entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(start, pages, kind) in entries {
        let entry = EfiEntry {
            kind: kind.into(),
            padding: 0.into(),
            start: start.into(),
            virtual_start: 0.into(),
            pages: pages.into(),
        };
        bytes.extend_from_slice(entry.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(48), 0);
    }
    bytes
}

fn map(entries: &[(u64, u64, u32)]) -> Box<MemoryMapTag> {
    let areas: Vec<_> = entries.iter().map(|&(start, length, kind)| MemoryArea::new(start, length, kind)).collect();
    MemoryMapTag::new(&areas)
}

fn true_colour() -> Box<BuiltFramebuffer> {
    let field = |position| FramebufferField { position, size: 8 };
    let format = FramebufferType::RGB { red: field(16), green: field(8), blue: field(0) };
    BuiltFramebuffer::new(0xFD00_0000, 4096, 1024, 768, 32, format)
}

fn build(builder: Builder) -> Vec<u8> {
    builder.build().as_bytes().to_vec()
}

fn parsed(bytes: &[u8]) -> (Result<BootInfo, Multiboot2Error>, Vec<Note>) {
    let mut notes = Vec::new();
    let memory = MemoryImage::new(PhysAddr::new(START).unwrap(), bytes);
    let info = parse(&memory, PhysAddr::new(START).unwrap(), &mut |note| notes.push(note));
    (info, notes)
}

fn sound(bytes: &[u8]) -> BootInfo {
    let (info, notes) = parsed(bytes);
    assert_eq!(notes, []);
    info.unwrap()
}

/// The offset of the tag of a type.
fn find(bytes: &[u8], kind: u32) -> usize {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 8;
    while word(at) != kind {
        at += word(at + 4).next_multiple_of(8) as usize;
    }
    at
}

#[test]
fn what_a_bios_loader_says_is_understood() {
    let builder = Builder::new()
        .cmdline(CommandLineTag::new("mode=check log=json"))
        .add_module(ModuleTag::new(0x80_0000, 0x80_1234, "one"))
        .mmap(map(Q35))
        .framebuffer(true_colour())
        .rsdpv1(RsdpV1Tag::new(*b"BOCHS ", 0, 0x1ffe_2000));
    let bytes = build(builder);
    let info = sound(&bytes);
    assert_eq!((info.protocol, info.command_line.as_bytes()), ("multiboot2", &b"mode=check log=json"[..]));
    assert_eq!(info.memory_map.usable_bytes(), 0x9_fc00 + 0x1fee_0000);
    let (rsdp, room) = info.rsdp.map(|range| (range.start().as_u64(), range.bytes())).unwrap();
    assert_eq!(room, 20);
    assert_eq!(&bytes[(rsdp - START) as usize..][..8], b"RSD PTR ");
    let framebuffer = info.framebuffer.unwrap();
    assert_eq!((framebuffer.width, framebuffer.height, framebuffer.pitch, framebuffer.depth), (1024, 768, 4096, 32));
    let channel = |position| Channel { position, width: 8 };
    assert_eq!(framebuffer.format, PixelFormat::Rgb([channel(16), channel(8), channel(0)]));
    let areas: Vec<_> =
        info.areas.iter().map(|area| (area.kind, area.range.start().as_u64(), area.range.bytes())).collect();
    let own = (AreaKind::StartInfo, START, bytes.len() as u64);
    assert_eq!(areas, [own, (AreaKind::Module(0), 0x80_0000, 0x1234)]);
}

#[test]
fn of_two_root_pointers_the_newer_one_counts() {
    let old = || RsdpV1Tag::new(*b"BOCHS ", 0, 0x1000);
    let new = RsdpV2Tag::new(*b"BOCHS ", 2, 0x1000, 36, 0x2000);
    let bytes = build(Builder::new().mmap(map(Q35)).rsdpv1(old()).rsdpv2(new));
    let at = sound(&bytes).rsdp.unwrap().start().as_u64() - START;
    assert_eq!(at as usize, find(&bytes, tag::RSDP_V2) + 8);
}

/// Boot information of tags of these types and contents, without padding behind the last.
fn tags(all: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for (kind, contents) in all {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(kind.to_le_bytes());
        bytes.extend((contents.len() as u32 + 8).to_le_bytes());
        bytes.extend(*contents);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend([0, 0, 0, 0, 8, 0, 0, 0]);
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes
}

#[test]
fn a_root_pointer_is_not_read_past_its_tag() {
    let bad = |kind, size| Note::BadTag { address: START + 8, kind, size };
    for (kind, length) in [(tag::RSDP_V2, 0), (tag::RSDP_V2, 35), (tag::RSDP_V1, 0), (tag::RSDP_V1, 19)] {
        let (info, notes) = parsed(&tags(&[(kind, &vec![0; length])]));
        assert_eq!(info.unwrap().rsdp, None);
        assert_eq!(notes, [bad(kind, length as u32 + 8), Note::NoMemoryMap]);
    }
    // The older one is used where the newer one is empty.
    let (info, notes) = parsed(&tags(&[(tag::RSDP_V2, &[]), (tag::RSDP_V1, &[0; 20])]));
    assert_eq!(info.unwrap().rsdp, PhysRange::parse(START + 24, 20).ok());
    assert_eq!(notes, [bad(tag::RSDP_V2, 8), Note::NoMemoryMap]);
}

#[test]
fn a_command_line_ends_with_its_tag() {
    let (info, notes) = parsed(&tags(&[(tag::COMMAND_LINE, b"mode=check"), (99, b"log=json")]));
    assert_eq!(info.unwrap().command_line.as_bytes(), b"mode=check");
    assert_eq!(notes, [Note::CommandLineUnterminated { room: 10 }, Note::NoMemoryMap]);
    let (info, notes) = parsed(&tags(&[(tag::COMMAND_LINE, b""), (99, b"log=json")]));
    assert_eq!(info.unwrap().command_line.as_bytes(), b"");
    assert_eq!(notes, [Note::CommandLineUnterminated { room: 0 }, Note::NoMemoryMap]);
}

#[test]
fn flaws_of_an_efi_map_are_reported() {
    let bios = map(Q35).as_bytes()[8..].to_vec();
    let header = |stride: u32| [stride, 1].map(u32::to_le_bytes).concat();
    let with = |efi: &[u8]| parsed(&tags(&[(tag::EFI_MEMORY_MAP, efi), (tag::MEMORY_MAP, &bios)])).1;
    let small = [header(31), efi_map(&[(0x80_6000, 2, 10)])].concat();
    assert_eq!(with(&small), [Note::BadTag { address: START + 8, kind: tag::EFI_MEMORY_MAP, size: 64 }]);
    let endless = [header(48), efi_map(&[(0x80_6000, 2, 10), (0x1000, u64::MAX, 10)])].concat();
    let (start, length, reason) = (0x1000, u64::MAX, BadRange::TooHigh);
    assert_eq!(with(&endless), [Note::BadEntry { index: 1, start, length, reason }]);
}

#[test]
fn kinds_that_efi_does_not_name_are_told_once() {
    let unknown: Vec<_> = (0..12).map(|number| (0x100_0000 * (number + 1), 1, 15 + number as u32)).collect();
    let efi = efi_map(&unknown);
    let tag = EFIMemoryMapTag::new_from_map(48, 1, &efi);
    let (info, notes) = parsed(&build(Builder::new().mmap(map(Q35)).efi_mmap(tag)));
    assert_eq!(notes, [Note::UnknownEfiKinds { count: 12, first: 15 }]);
    assert_eq!(info.unwrap().memory_map.of_kind(RegionKind::Reserved).count(), 3 + 12);
}

#[test]
fn the_system_table_of_efi_is_passed_on() {
    let of = |builder: Builder| sound(&build(builder.mmap(map(Q35)))).efi;
    assert_eq!(of(Builder::new()), None);
    let table = |address, wide| Some(EfiSystemTable { address, wide });
    assert_eq!(of(Builder::new().efi32(EFISdt32Tag::new(0xfff0_0018))), table(0xfff0_0018, false));
    let mut bytes = build(Builder::new().mmap(map(Q35)).efi64(EFISdt64Tag::new(0x1_7fff_0018)));
    assert_eq!(sound(&bytes).efi, table(0x1_7fff_0018, true));
    // A tag that does not hold the pointer says nothing.
    let at = find(&bytes, tag::EFI64_SYSTEM_TABLE);
    bytes[at + 4..at + 8].copy_from_slice(&12u32.to_le_bytes());
    assert_eq!(sound(&bytes).efi, None);
}

#[test]
fn what_efi_keeps_is_not_usable() {
    let all = [(0x10_0000, 0x3ff0_0000, 1)];
    let efi = efi_map(&[
        (0x10_0000, 0x700, 7),
        (0x80_6000, 2, 10),
        (0x90_0000, 0x100, 3),
        (0x100_0000, 0x10, 6),
        (0x200_0000, 0x10, 9),
        (0x300_0000, 1, 99),
    ]);
    let tag = EFIMemoryMapTag::new_from_map(48, 1, &efi);
    let (info, notes) = parsed(&build(Builder::new().mmap(map(&all)).efi_mmap(tag)));
    assert_eq!(notes, [Note::UnknownEfiKinds { count: 1, first: 99 }]);
    let info = info.unwrap();
    let regions: Vec<_> =
        info.memory_map.regions().iter().map(|it| (it.range.start().as_u64(), it.range.end(), it.kind)).collect();
    assert_eq!(
        regions,
        [
            (0x10_0000, 0x80_6000, RegionKind::Usable),
            (0x80_6000, 0x80_8000, RegionKind::AcpiNvs),
            (0x80_8000, 0x100_0000, RegionKind::Usable),
            (0x100_0000, 0x101_0000, RegionKind::Reserved),
            (0x101_0000, 0x200_0000, RegionKind::Usable),
            (0x200_0000, 0x201_0000, RegionKind::AcpiReclaimable),
            (0x201_0000, 0x300_0000, RegionKind::Usable),
            (0x300_0000, 0x300_1000, RegionKind::Reserved),
            (0x300_1000, 0x4000_0000, RegionKind::Usable),
        ]
    );
}

#[test]
fn entries_that_cannot_be_are_named_and_skipped() {
    let entries = [(0x1000, 0x1000, 1), (u64::MAX, 2, 1), (0x5000, 0, 1)];
    let (info, notes) = parsed(&build(Builder::new().mmap(map(&entries))));
    assert_eq!(info.unwrap().memory_map.usable_bytes(), 0x1000);
    let bad = |index, (start, length, _): (u64, u64, u32), reason| Note::BadEntry { index, start, length, reason };
    assert_eq!(notes, [bad(1, entries[1], BadRange::TooHigh), bad(2, entries[2], BadRange::Empty)]);
}

#[test]
fn a_framebuffer_that_cannot_be_is_named_and_not_used() {
    let narrow = BuiltFramebuffer::new(0xFD00_0000, 100, 1024, 768, 32, FramebufferType::Text);
    let (info, notes) = parsed(&build(Builder::new().mmap(map(Q35)).framebuffer(narrow)));
    assert_eq!(info.unwrap().framebuffer, None);
    let [Note::BadFramebuffer(Some(framebuffer))] = notes[..] else { panic!("{notes:?}") };
    assert_eq!(framebuffer.pitch, 100);
    let palette = [FramebufferColor { red: 1, green: 2, blue: 3 }];
    let indexed =
        BuiltFramebuffer::new(0xFD00_0000, 1024, 1024, 768, 8, FramebufferType::Indexed { palette: &palette });
    let mut bytes = build(Builder::new().mmap(map(Q35)).framebuffer(indexed));
    assert_eq!(sound(&bytes).framebuffer.unwrap().format, PixelFormat::Indexed);
    let kind = find(&bytes, tag::FRAMEBUFFER) + 29;
    bytes[kind] = 7;
    assert_eq!(parsed(&bytes).1, [Note::BadFramebuffer(None)]);
}

#[test]
fn modules_without_room_or_sense_are_named() {
    let mut builder = Builder::new().mmap(map(Q35));
    for number in 1..11 {
        builder = builder.add_module(ModuleTag::new(number << 20, (number << 20) + 5, ""));
    }
    let mut bytes = build(builder);
    // The first is empty.
    let module = find(&bytes, tag::MODULE);
    bytes.copy_within(module + 8..module + 12, module + 12);
    let (info, notes) = parsed(&bytes);
    assert_eq!(notes, [Note::TooManyModules { count: 10, kept: 8 }]);
    assert_eq!(info.unwrap().areas.iter().count(), 8, "the boot information and seven modules");
    let mut backwards = bytes;
    backwards[module + 8..module + 12].copy_from_slice(&0x30_0000_u32.to_le_bytes());
    assert!(matches!(parsed(&backwards).1[0], Note::BadModule { index: 0, start: 0x30_0000, .. }));
}

#[test]
fn a_tag_that_cannot_be_ends_the_list() {
    let bytes = build(Builder::new().mmap(map(Q35)).framebuffer(true_colour()));
    let at = find(&bytes, tag::FRAMEBUFFER);
    for size in [0_u32, 7, 0x1000, u32::MAX] {
        let mut bytes = bytes.clone();
        bytes[at + 4..at + 8].copy_from_slice(&size.to_le_bytes());
        let (info, notes) = parsed(&bytes);
        assert_eq!(notes, [Note::BadTag { address: START + at as u64, kind: 8, size }]);
        assert_eq!(info.unwrap().memory_map.usable_bytes(), 0x9_fc00 + 0x1fee_0000);
    }
}

#[test]
fn what_is_no_boot_information_is_refused() {
    let good = build(Builder::new().mmap(map(Q35)));
    for size in [0_u32, 15, MAX_BYTES + 1, u32::MAX] {
        let mut bytes = good.clone();
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        assert_eq!(parsed(&bytes).0.unwrap_err(), Multiboot2Error::Size(size));
    }
    assert!(matches!(parsed(&good[..4]).0, Err(Multiboot2Error::Unreadable(_))));
    let (info, notes) = parsed(&build(Builder::new()));
    assert!(info.unwrap().memory_map.regions().is_empty());
    assert_eq!(notes, [Note::NoMemoryMap]);
}

proptest! {
    #[test]
    fn anything_ends_and_nothing_panics(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        real in any::<bool>(),
    ) {
        if real {
            let efi = EFIMemoryMapTag::new_from_map(48, 1, &efi_map(&[(0x80_6000, 2, 10)]));
            bytes = build(Builder::new().mmap(map(Q35)).framebuffer(true_colour()).efi_mmap(efi));
        }
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let (Ok(info), _) = parsed(&bytes) {
            prop_assert!(info.framebuffer.is_none_or(|framebuffer| framebuffer.is_sound()));
            for pair in info.memory_map.regions().windows(2) {
                prop_assert!(pair[0].range.end() <= pair[1].range.start().as_u64());
            }
        }
    }
}
