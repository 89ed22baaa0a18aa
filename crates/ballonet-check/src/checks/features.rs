//! Feature bits: what is offered, and what of it can be accepted.

use alloc::vec::Vec;

use super::status::read_accepted;
use crate::outcome::{Verdict, ensure, needs};
use crate::subject::Subject;
use crate::traffic::Shape;
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::wire::FEATURES;
use ballonet::platform::{Platform, Registers};
use ballonet::virtio::spec::{Features, common};

/// Bits that no balloon over PCI has a meaning for: the device type's beyond its own six, those that legacy drivers
/// misused, and those that nobody has defined.
const RESERVED: u64 = 0x00ff_ffc0 | 1 << 25 | 1 << 26 | 1 << 30 | 1 << 31 | 1 << 42 | !0 << 44;

pub fn version_1_is_offered<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let offered = subject.offered;
    ensure!(offered.contains(Features::VERSION_1), "the device offers {offered}");
    Ok(())
}

pub fn offered_features_hold_still<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let before = subject.offered;
    for step in ["after a reset", "once more"] {
        if step == "after a reset" {
            subject.begin()?;
        }
        let now = subject.read_offered();
        ensure!(now == before, "read {step}, the offered features are {now}, before they were {before}");
    }
    let usable = subject.usable();
    subject.negotiate(usable)?;
    let now = subject.read_offered();
    ensure!(now == before, "read after FEATURES_OK, the offered features are {now}, before they were {before}");
    Ok(())
}

pub fn feature_words_beyond_are_0<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.begin()?;
    for select in [2, 3, 4, 31, 32, 0x8000_0000, u32::MAX] {
        let word = subject.feature_word(select);
        ensure!(word == 0, "device_feature is {word:#x} at device_feature_select {select:#x}");
    }
    Ok(())
}

pub fn reserved_features_are_not_offered<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let reserved = subject.offered.bits() & RESERVED;
    ensure!(reserved == 0, "the device offers reserved bits: {reserved:#x}");
    Ok(())
}

pub fn feature_selectors_read_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.begin()?;
    for register in [common::DEVICE_FEATURE_SELECT, common::DRIVER_FEATURE_SELECT] {
        for select in [1, 0, 1] {
            subject.common.write32(register, select);
            let read = subject.common.read32(register);
            ensure!(read == select, "{select} was written to {register:#x} of the common structure, {read:#x} is read");
        }
    }
    Ok(())
}

pub fn accepted_features_read_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let usable = subject.usable();
    needs!(subject.negotiate(usable)?, "the device does not take the features {usable}");
    let read = read_accepted(subject);
    ensure!(read == usable, "features {usable} were accepted, {read} are read");
    Ok(())
}

pub fn features_ok_refuses_unoffered<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let known = FEATURES.into_iter().fold(Features::empty(), |all, (_, feature)| all | feature);
    let unoffered = known - subject.offered;
    // One of each word, so that neither is passed over.
    for word in [unoffered.bits() & u64::from(u32::MAX), unoffered.bits() >> 32 << 32] {
        if word == 0 {
            continue;
        }
        let bit = Features::from_bits_retain(1 << word.trailing_zeros());
        let features = subject.least() | bit;
        let taken = subject.negotiate(features)?;
        ensure!(!taken, "FEATURES_OK sticks with {bit} accepted, which is not offered");
    }
    Ok(())
}

pub fn any_offered_subset_is_taken<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    for features in subsets(subject) {
        let taken = subject.negotiate(features)?;
        ensure!(taken, "the device does not take the features {features}");
    }
    Ok(())
}

/// The least features; with each one more; all; all but each.
fn subsets<P: Platform>(subject: &Subject<'_, P>) -> Vec<Features> {
    let (least, usable) = (subject.least(), subject.usable());
    let optional = || (usable - least).iter_bits();
    let mut subsets = alloc::vec![least, usable];
    subsets.extend(optional().map(|bit| least | bit));
    subsets.extend(optional().map(|bit| usable - bit));
    subsets
}

/// The bits of a set one by one.
trait Bits {
    fn iter_bits(self) -> impl Iterator<Item = Features>;
}

impl Bits for Features {
    fn iter_bits(self) -> impl Iterator<Item = Features> {
        (0..u64::BITS).map(|bit| Self::from_bits_retain(1 << bit)).filter(move |bit| self.contains(*bit))
    }
}

pub fn works_with_the_least_features<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let least = subject.least();
    works(subject, least)
}

pub fn works_with_all_features<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let usable = subject.usable();
    works(subject, usable)
}

pub fn works_with_each_feature_alone<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let (least, usable) = (subject.least(), subject.usable());
    (usable - least).iter_bits().try_for_each(|bit| works(subject, least | bit))
}

pub fn works_with_all_features_but_one<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let (least, usable) = (subject.least(), subject.usable());
    (usable - least).iter_bits().try_for_each(|bit| works(subject, usable - bit))
}

/// Brings the device up with these features, if it takes them, and gives it frames and takes them back.
fn works<P: BalloonPlatform>(subject: &mut Subject<'_, P>, features: Features) -> Verdict {
    if !subject.negotiate(features)? {
        return Ok(());
    }
    let setup = crate::subject::Setup { features, ..subject.plain() };
    subject.start(&setup)?;
    subject.exchange_cleanly(64, &Shape::PLAIN)
}
