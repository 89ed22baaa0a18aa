//! Feature bits: which are offered, and which of them can be accepted.

use core::mem::offset_of;

use alloc::vec::Vec;

use super::status::read_accepted;
use crate::check::Severity::{Custom, Must, Should};
use crate::check::{Check, ensure, on_device, skip_unless};
use crate::device::{KNOWN, NETWORK, TestDevice};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CommonConfig, Features};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "version-1-is-offered", "6.2", "VERSION_1 is offered", |device| {
        skip_unless!(!device.is_legacy(), "the legacy interface has 32 feature bits");
        let offered = device.offered;
        ensure!(offered.contains(Features::VERSION_1), "the device offers {offered}");
        Ok(())
    }),
    on_device(Must, "offered-features-hold-still", "2.2", "the offered features do not change", |device| {
        let before = device.offered;
        for step in ["after a reset", "once more"] {
            if step == "after a reset" {
                device.begin()?;
            }
            let now = device.read_offered();
            ensure!(now == before, "read {step}, the offered features are {now}, before they were {before}");
        }
        let usable = device.usable();
        device.negotiate(usable)?;
        let now = device.read_offered();
        ensure!(now == before, "read after FEATURES_OK, the offered features are {now}, before they were {before}");
        Ok(())
    }),
    on_device(
        Must,
        "feature-words-beyond-are-0",
        "4.1.4.3.1",
        "device_feature is 0 where no feature is defined",
        |device| {
            skip_unless!(!device.is_legacy(), "the legacy interface has 32 feature bits");
            // Network devices have features up to bit 127.
            let defined = if device.kind.number == NETWORK { 4 } else { 2 };
            device.begin()?;
            for select in [2, 3, 4, 31, 32, 0x8000_0000, u32::MAX].into_iter().filter(|select| *select >= defined) {
                let word = device.feature_word(select);
                ensure!(word == 0, "device_feature is {word:#x} at device_feature_select {select:#x}");
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "reserved-features-are-not-offered",
        "2.2",
        "feature bits that are not defined for the device type are not offered",
        |device| {
            skip_unless!(!device.is_legacy(), "legacy devices have bits of their own");
            let reserved = device.offered.bits() & (RESERVED | OF_TYPE & !device.kind.defined);
            ensure!(reserved == 0, "the device offers reserved bits: {reserved:#x}");
            Ok(())
        },
    ),
    on_device(
        Custom,
        "feature-selectors-read-back",
        "4.1.4.3",
        "device_feature_select and driver_feature_select read back",
        |device| {
            device.begin()?;
            for register in
                [offset_of!(CommonConfig, device_feature_select), offset_of!(CommonConfig, driver_feature_select)]
            {
                for select in [1, 0, 1] {
                    device.common()?.write32(register, select);
                    let read = device.common()?.read32(register);
                    ensure!(
                        read == select,
                        "{select} was written to {register:#x} of the common structure, {read:#x} is read"
                    );
                }
            }
            Ok(())
        },
    ),
    on_device(Custom, "accepted-features-read-back", "4.1.4.3", "driver_feature reads back", |device| {
        let usable = device.usable();
        device.modern()?;
        skip_unless!(device.negotiate(usable)?, "the device does not take the features {usable}");
        let read = read_accepted(device)?;
        ensure!(read == usable, "features {usable} were accepted, {read} are read");
        Ok(())
    }),
    on_device(
        Must,
        "features-ok-refuses-unoffered",
        "2.2.2",
        "FEATURES_OK does not stick with a feature that is not offered",
        |device| {
            skip_unless!(!device.is_legacy(), "the legacy interface has no FEATURES_OK");
            let known = Features::from_bits_retain(device.kind.features) | COMMON;
            let unoffered = known - device.offered;
            // One of each word, so that both are tested.
            for word in [unoffered.bits() & u64::from(u32::MAX), unoffered.bits() >> 32 << 32] {
                if word == 0 {
                    continue;
                }
                let bit = Features::from_bits_retain(1 << word.trailing_zeros());
                let features = device.least() | bit;
                let taken = device.negotiate(features)?;
                ensure!(!taken, "FEATURES_OK sticks with {bit} accepted, which is not offered");
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "any-offered-subset-is-taken",
        "2.2.2",
        "any valid subset of the offered features is accepted",
        |device| {
            for features in subsets(device) {
                let taken = device.negotiate(features)?;
                ensure!(taken, "the device does not take the features {features}");
            }
            Ok(())
        },
    ),
];

/// The bits that belong to the device type.
const OF_TYPE: u64 = 0x00ff_ffff | !0 << 50;
/// Bits without a meaning for any device: those that legacy drivers misused, and undefined ones.
const RESERVED: u64 = 1 << 25 | 1 << 26 | 1 << 30 | 1 << 31 | 1 << 42 | 0x3f << 44;
/// Features that any type of device may offer.
const COMMON: Features = KNOWN.union(Features::SR_IOV).difference(Features::ANY_LAYOUT);

/// The minimal features; those and each other one; all; all but each one.
fn subsets(device: &TestDevice<'_>) -> Vec<Features> {
    let (least, usable) = (device.least(), device.usable());
    let optional = || bits(usable - least);
    let mut subsets = alloc::vec![least, usable];
    subsets.extend(optional().map(|bit| least | bit));
    subsets.extend(optional().map(|bit| usable - bit));
    subsets
}

/// The single bits of a set, including those without a name.
pub(super) fn bits(set: Features) -> impl Iterator<Item = Features> {
    (0..u64::BITS).map(|bit| Features::from_bits_retain(1 << bit)).filter(move |bit| set.contains(*bit))
}
