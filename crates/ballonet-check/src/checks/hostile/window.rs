//! The access window in configuration space.

use super::common::is_gap;
use super::steps::in_traffic;
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::TestDevice;
use ballonet::virtio::spec::CapabilityType;

const WINDOW: Clause = clause("4.1.4.9.2", "the access window must select bytes of another structure");
const WINDOW_ALIGNED: Clause = clause("4.1.4.9.2", "the access window must select 1, 2 or 4 bytes, aligned");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-window-of-0-bytes", WINDOW_ALIGNED, "the access window selects 0 bytes", |d| window(d, 0, 0)),
    registers("hostile-window-of-3-bytes", WINDOW_ALIGNED, "the access window selects 3 bytes", |d| window(d, 0, 3)),
    registers("hostile-window-of-8-bytes", WINDOW_ALIGNED, "the access window selects 8 bytes", |d| window(d, 0, 8)),
    registers("hostile-window-of-255-bytes", WINDOW_ALIGNED, "the access window selects 255 bytes", |d| {
        window(d, 0, 255)
    }),
    registers("hostile-window-of-4-gib", WINDOW_ALIGNED, "the access window selects 2^32 - 1 bytes", |d| {
        window(d, 0, u32::MAX)
    }),
    registers(
        "hostile-window-of-2-bytes-unaligned",
        WINDOW_ALIGNED,
        "the access window selects 2 bytes at an odd offset",
        |d| window(d, 1, 2),
    ),
    registers("hostile-window-of-4-bytes-unaligned", WINDOW_ALIGNED, "the access window selects 4 bytes at 2", |d| {
        window(d, 2, 4)
    }),
    registers(
        "hostile-window-of-4-bytes-at-an-odd-place",
        WINDOW_ALIGNED,
        "the access window selects 4 bytes at 5",
        |d| window(d, 5, 4),
    ),
    registers("hostile-window-past-its-bar", WINDOW, "the access window selects bytes past the BAR", |d| {
        past(d, &[0x4000, 0x10_0000, 0x7fff_fffc, 0x8000_0000, 0xffff_fffc])
    }),
    registers(
        "hostile-window-across-the-end-of-its-bar",
        WINDOW,
        "the access window selects bytes across the end of the BAR",
        |d| past(d, &[0x3ffe, 0x3fff, 0xfff, 0x1fff, 0xffff_ffff]),
    ),
    registers("hostile-window-of-bar-6", WINDOW, "the access window selects BAR 6", |d| barred(d, 6)),
    registers("hostile-window-of-bar-7", WINDOW, "the access window selects BAR 7", |d| barred(d, 7)),
    registers("hostile-window-of-bar-255", WINDOW, "the access window selects BAR 255", |d| barred(d, 255)),
    registers("hostile-window-of-every-bar", WINDOW, "the access window selects every BAR, present or not", |d| {
        in_traffic(d, |d| (0..6).try_for_each(|bar| d.window_access(bar, 0, 4, None)))
    }),
    registers("hostile-window-in-the-gaps", WINDOW, "the access window selects offsets without a structure", |d| {
        in_traffic(d, |d| {
            let (bar, _) = d.place_of(CapabilityType::Common)?;
            for offset in (0..0x4000)
                .step_by(0x100)
                .filter(|offset| is_gap(d, u64::from(*offset)))
                .collect::<alloc::vec::Vec<u32>>()
            {
                d.window_access(bar, offset, 4, None)?;
                d.window_access(bar, offset, 4, Some(u32::MAX))?;
            }
            Ok(())
        })
    }),
    registers("hostile-window-kicks", WINDOW, "a queue is notified through the access window in every width", |d| {
        in_traffic(d, |d| {
            let (bar, offset) = d.place_of(CapabilityType::Notify)?;
            [1, 2, 4].into_iter().try_for_each(|length| d.window_access(bar, offset, length, Some(0)))
        })
    }),
];

/// Reads and writes the common structure through the window, at this offset in it.
fn window(d: &mut TestDevice<'_>, offset: u32, length: u32) -> Verdict<Reaction> {
    in_traffic(d, |d| {
        let (bar, start) = d.place_of(CapabilityType::Common)?;
        d.window_access(bar, start + offset, length, None)?;
        d.window_access(bar, start + offset, length, Some(0))
    })
}

/// Selects offsets past the end of the BAR, reading and writing.
fn past(d: &mut TestDevice<'_>, offsets: &[u32]) -> Verdict<Reaction> {
    in_traffic(d, |d| {
        let (bar, _) = d.place_of(CapabilityType::Common)?;
        let size = d.pci_function().bars.get(bar).map_or(0, |bar| bar.size);
        for offset in offsets.iter().filter(|offset| u64::from(**offset) + 4 > size) {
            for length in [1, 2, 4] {
                d.window_access(bar, *offset, length, None)?;
                d.window_access(bar, *offset, length, Some(u32::MAX))?;
            }
        }
        Ok(())
    })
}

/// Selects a BAR that no function has.
fn barred(d: &mut TestDevice<'_>, bar: u8) -> Verdict<Reaction> {
    in_traffic(d, |d| {
        for length in [1, 2, 4] {
            d.window_access(bar, 0, length, None)?;
            d.window_access(bar, 0, length, Some(u32::MAX))?;
        }
        Ok(())
    })
}
