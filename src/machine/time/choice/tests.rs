//! The clocks that each environment leads to: CPUID's answers and tables as VMMs and machines have them.

use proptest::prelude::*;

use super::ClockSource::{Base, Crystal, Guess, Hpet, HyperV, HypervisorLeaf, KvmClock, Pit};
use super::*;
use crate::acpi::GenericAddress;

const NOTHING: Leaf = [0; 4];

/// The first leaf of a range: the highest, and twelve characters.
fn first(most: u32, name: &[u8; 12]) -> Leaf {
    let [b, c, d] = [0, 4, 8].map(|at| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]));
    [most, b, c, d]
}

/// A CPU with these leaves; all else is zero.
fn cpu(leaves: &[(u32, Leaf)]) -> ClockLeaves {
    ClockLeaves::read(|leaf| leaves.iter().find(|(number, _)| *number == leaf).map_or(NOTHING, |(_, answer)| *answer))
}

fn pm_timer(bits: u8) -> Option<PmTimer> {
    let space = AddressSpace::Io;
    let register = GenericAddress { space, bit_width: 32, bit_offset: 0, access_bytes: Some(4), address: 0x608 };
    Some(PmTimer { register, bits })
}

/// A basic leaf 0, the hypervisor's bit, and what comes with it.
const BASIC: (u32, Leaf) = (0, [0x20, 0, 0, 0]);
const VIRTUAL: (u32, Leaf) = (1, [0, 0, 1 << 31, 0]);
/// The features of KVM that every host of the last ten years has.
const KVM_FEATURES: (u32, Leaf) = (0x4000_0001, [CLOCK | CLOCK_2 | CLOCK_IS_STABLE, 0, 0, 0]);
const KVM_CLOCK: ClockSource = KvmClock { msr: SYSTEM_TIME_NEW, is_stable: true };

fn kvm(most: u32) -> (u32, Leaf) {
    (0x4000_0000, first(most, b"KVMKVMKVM\0\0\0"))
}

/// An environment: its name, CPUID's answers, the PM timer and the HPET of its tables, and the clocks in order.
type Case<'c> = (&'c str, &'c [(u32, Leaf)], Option<PmTimer>, bool, &'c [ClockSource]);

#[test]
fn each_environment_has_its_clock() {
    let khz = (0x4000_0010, [2_500_000, 1_000_000, 0, 0]);
    let crystal = (0x15, [2, 250, 24_000_000, 0]);
    let table: [Case<'_>; 11] = [
        // PM_TMR_LEN is 0, so the FADT names no timer; no HPET. The 8254 would be asked last, and is not there.
        ("Cloud Hypervisor", &[BASIC, VIRTUAL, kvm(0x4000_0001), KVM_FEATURES], None, false, &[KVM_CLOCK, Pit, Guess]),
        (
            "Cloud Hypervisor with an invariant TSC",
            &[BASIC, VIRTUAL, kvm(0x4000_0010), KVM_FEATURES, khz],
            None,
            false,
            &[KVM_CLOCK, HypervisorLeaf(2_500_000_000), Pit, Guess],
        ),
        ("Firecracker", &[BASIC, VIRTUAL, kvm(0x4000_0001), KVM_FEATURES], None, false, &[KVM_CLOCK, Pit, Guess]),
        // On a host without KVM's clock, as under an old nested one, its PIT serves.
        ("crosvm", &[BASIC, VIRTUAL, kvm(0x4000_0001)], None, false, &[Pit, Guess]),
        (
            "QEMU with KVM",
            &[BASIC, VIRTUAL, kvm(0x4000_0001), KVM_FEATURES],
            pm_timer(24),
            true,
            &[KVM_CLOCK, ClockSource::PmTimer(0x608, 0xFF_FFFF), Hpet, Pit, Guess],
        ),
        (
            "QEMU with TCG",
            &[BASIC, VIRTUAL, (0x4000_0000, first(0x4000_0001, b"TCGTCGTCGTCG"))],
            pm_timer(24),
            true,
            &[ClockSource::PmTimer(0x608, 0xFF_FFFF), Hpet, Pit, Guess],
        ),
        (
            "QEMU with KVM and Hyper-V's enlightenments",
            &[
                BASIC,
                VIRTUAL,
                (0x4000_0000, first(0x4000_0005, b"Microsoft Hv")),
                (0x4000_0003, [REFERENCE_TSC, 0, 0, 0]),
                (0x4000_0100, first(0x4000_0101, b"KVMKVMKVM\0\0\0")),
                (0x4000_0101, [CLOCK | CLOCK_2, 0, 0, 0]),
            ],
            pm_timer(32),
            false,
            &[
                KvmClock { msr: SYSTEM_TIME_NEW, is_stable: false },
                HyperV,
                ClockSource::PmTimer(0x608, u32::MAX),
                Pit,
                Guess,
            ],
        ),
        (
            "Hyper-V",
            &[
                BASIC,
                VIRTUAL,
                (0x4000_0000, first(0x4000_000B, b"Microsoft Hv")),
                (0x4000_0003, [REFERENCE_TSC | 1 << 11, 0, 0, 0]),
            ],
            pm_timer(32),
            false,
            &[HyperV, ClockSource::PmTimer(0x608, u32::MAX), Pit, Guess],
        ),
        (
            "VMware",
            &[BASIC, VIRTUAL, (0x4000_0000, first(0x4000_0010, b"VMwareVMware")), khz],
            pm_timer(24),
            true,
            &[HypervisorLeaf(2_500_000_000), ClockSource::PmTimer(0x608, 0xFF_FFFF), Hpet, Pit, Guess],
        ),
        (
            "a PC whose CPU tells",
            &[BASIC, crystal, (0x16, [2900, 0, 0, 0])],
            pm_timer(24),
            true,
            &[Crystal(3_000_000_000), ClockSource::PmTimer(0x608, 0xFF_FFFF), Hpet, Pit, Base(2_900_000_000), Guess],
        ),
        // A crystal of 0 Hz is not told, whatever the ratio is.
        ("a PC whose CPU does not tell", &[BASIC, (0x15, [2, 250, 0, 0])], None, false, &[Pit, Guess]),
    ];
    for (name, leaves, timer, hpet, expected) in table {
        let sources: Vec<_> = cpu(leaves).sources(timer, hpet).collect();
        assert_eq!(sources, expected, "{name}");
    }
}

#[test]
fn leaves_beyond_the_last_are_not_believed() {
    // Intel CPUs answer those with their last leaf.
    let last: (u32, Leaf) = (0, [0x14, 0, 0, 0]);
    let sources: Vec<_> =
        cpu(&[last, (0x15, [2, 250, 24_000_000, 0]), (0x16, [2900, 0, 0, 0])]).sources(None, false).collect();
    assert_eq!(sources, [Pit, Guess]);
    let hypervisor = [BASIC, VIRTUAL, kvm(0x4000_0001), (0x4000_0010, [2_500_000, 0, 0, 0])];
    assert_eq!(cpu(&hypervisor).told_hz, None);
    // Without a hypervisor nothing is there, whatever is read.
    assert_eq!(cpu(&[BASIC, kvm(0x4000_0010), KVM_FEATURES]).kvm, None);
}

#[test]
fn the_first_kvms_are_known_too() {
    let clock = |features| cpu(&[BASIC, VIRTUAL, kvm(0), (0x4000_0001, [features, 0, 0, 0])]).kvm;
    assert_eq!(clock(CLOCK), Some(KvmClock { msr: SYSTEM_TIME, is_stable: false }));
    assert_eq!(clock(CLOCK | CLOCK_2), Some(KvmClock { msr: SYSTEM_TIME_NEW, is_stable: false }));
    assert_eq!(clock(CLOCK_IS_STABLE), None);
}

#[test]
fn a_timer_in_memory_is_not_taken() {
    let mut timer = pm_timer(24).unwrap();
    timer.register.space = AddressSpace::Memory;
    assert_eq!(port_of(timer), None);
    timer.register = GenericAddress { space: AddressSpace::Io, address: 0x1_0000, ..timer.register };
    assert_eq!(port_of(timer), None);
}

proptest! {
    #[test]
    fn whatever_cpuid_answers_there_is_a_clock(seed: u32, most: u32, hypervisor: u32, timer: bool, hpet: bool) {
        let answer = |leaf: u32| {
            let mix = |by: u32| leaf.wrapping_mul(0x9E37_79B9).wrapping_add(seed).rotate_left(by);
            match leaf {
                0 => [most, 0, 0, 0],
                0x4000_0000 => first(hypervisor, b"KVMKVMKVM\0\0\0"),
                _ => [mix(3), mix(7), mix(13) | 1 << 31, mix(19)],
            }
        };
        let timer = pm_timer(24).filter(|_| timer);
        let sources: Vec<_> = ClockLeaves::read(answer).sources(timer, hpet).collect();
        prop_assert_eq!(sources.last(), Some(&Guess));
        for source in sources {
            let hz = match source {
                Crystal(hz) | HypervisorLeaf(hz) | Base(hz) => hz,
                _ => NANOSECONDS,
            };
            prop_assert!(is_plausible(hz), "{source:?}");
        }
    }
}
