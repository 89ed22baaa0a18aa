//! The checks, by chapter. A chapter is one file with one constant, which has each check's name, severity, clause,
//! sentence and function; listing, selection and documents come from it.

mod balloon;
mod block;
mod configuration;
mod configuration_space;
mod console;
mod entropy;
mod feature_sets;
mod features;
mod formats;
mod host;
mod hostile;
mod hot_plug;
mod interrupts;
mod layouts;
mod legacy;
mod mmio;
mod network;
mod queues;
mod resets;
mod rings;
mod status;

use alloc::format;
use alloc::string::String;

use crate::check::{Bus, Check};
use crate::device::{BALLOON, BLOCK, CONSOLE, ENTROPY, Kind, NETWORK};
use crate::subject::Identity;
use ballonet::virtio::TransportKind;

/// Checks on one subject.
#[derive(Debug, Clone, Copy)]
pub struct Chapter {
    /// Its name, by which all its checks can be selected: one word, or several joined by hyphens. No check is named
    /// like it.
    pub name: &'static str,
    /// What it is about: a phrase that can be a heading.
    pub title: &'static str,
    /// The number of the device type that it is for, if not any.
    pub(crate) device: Option<u16>,
    /// The interfaces that it is for.
    pub(crate) bus: Bus,
    /// Its checks, in the order in which they run.
    pub checks: &'static [Check],
}

impl Chapter {
    /// Whether its checks need a device in a hot-plug slot, from which the host can unplug it. Elsewhere they are skipped.
    pub fn needs_slot(&self) -> bool {
        self.name == HOT_PLUG
    }

    /// Why one of its checks does not apply to a device: by the type or the transport that it or the chapter is for.
    pub(crate) fn misfit(&self, check: &Check, identity: &Identity) -> Option<String> {
        if let Some(device) = check.device.or(self.device).filter(|device| *device != identity.number) {
            return Some(format!("this is for devices of type {}", Kind::of(device).name));
        }
        let fits = match self.bus {
            Bus::Any => true,
            Bus::Pci => matches!(identity.transport, TransportKind::Modern | TransportKind::Legacy),
            Bus::Modern => identity.transport == TransportKind::Modern,
            Bus::Legacy => identity.transport.is_legacy(),
            Bus::Ports => identity.transport == TransportKind::Legacy,
            Bus::LegacyMmio => identity.transport == TransportKind::MmioLegacy,
            Bus::Mmio => matches!(identity.transport, TransportKind::Mmio | TransportKind::MmioLegacy),
        };
        (!fits).then(|| format!("this is not for a device that is driven by {}", identity.transport))
    }
}

/// A chapter for any device on any bus.
const fn general(name: &'static str, title: &'static str, checks: &'static [Check]) -> Chapter {
    Chapter { name, title, device: None, bus: Bus::Any, checks }
}

/// A chapter for one type of device.
const fn of_type(device: u16, name: &'static str, title: &'static str, checks: &'static [Check]) -> Chapter {
    Chapter { name, title, device: Some(device), bus: Bus::Any, checks }
}

/// A chapter for some interfaces.
const fn on_bus(bus: Bus, name: &'static str, title: &'static str, checks: &'static [Check]) -> Chapter {
    Chapter { name, title, device: None, bus, checks }
}

/// The chapter for devices in a hot-plug slot.
const HOT_PLUG: &str = "hot-plug";

/// Every chapter, in the order in which they run.
pub const CHAPTERS: &[Chapter] = &[
    on_bus(Bus::Pci, "config-space", "PCI configuration space", configuration_space::CHECKS),
    general("status", "Status and reset", status::CHECKS),
    general("features", "Feature negotiation", features::CHECKS),
    general("queues", "Queue registers, doorbells and vectors", queues::CHECKS),
    general("config", "Device configuration", configuration::CHECKS),
    general("rings", "Rings", rings::CHECKS),
    general("interrupts", "Interrupts", interrupts::CHECKS),
    general("layouts", "Legal layouts of rings and requests", layouts::CHECKS),
    general("feature-sets", "Features at work", feature_sets::CHECKS),
    of_type(BALLOON, "balloon", "The balloon's own queues and fields", balloon::CHECKS),
    on_bus(
        Bus::Legacy,
        "legacy",
        "The legacy interface: `transport=legacy`, or registers of version 1 on MMIO",
        legacy::CHECKS,
    ),
    on_bus(Bus::Mmio, "mmio", "Virtio over MMIO", mmio::CHECKS),
    of_type(ENTROPY, "rng", "The entropy device: `device=rng`", entropy::CHECKS),
    of_type(BLOCK, "blk", "The block device: `device=blk`", block::CHECKS),
    of_type(CONSOLE, "console", "The console device: `device=console`", console::CHECKS),
    of_type(NETWORK, "net", "The network device: `device=net`", network::CHECKS),
    general("resets", "Resets at work", resets::CHECKS),
    of_type(BALLOON, "host", "Actions of the host, which need `ballonet-check`", host::CHECKS),
    on_bus(Bus::Pci, HOT_PLUG, "Hot-plug by the host, which needs `ballonet-check`", hot_plug::CHECKS),
    general("hostile-split", "Split rings", hostile::split::CHECKS),
    general("hostile-addresses", "Addresses and lengths", hostile::addresses::CHECKS),
    general("hostile-edges", "The ends of memory, and buffers outside memory", hostile::addresses::EDGES),
    general("hostile-lengths", "Lengths", hostile::addresses::LENGTHS),
    of_type(BALLOON, "hostile-pieces", "Lengths of a balloon's requests", hostile::addresses::PIECES),
    general("hostile-tables", "Tables of descriptors", hostile::indirect::CHECKS),
    general("hostile-more-tables", "Tables in one format", hostile::indirect::MORE),
    general("hostile-packed", "Packed rings", hostile::packed::CHECKS),
    general("hostile-setup", "Queue set-up", hostile::setup::CHECKS),
    general("hostile-kicks", "Notifications", hostile::notifications::CHECKS),
    general("hostile-status", "Status and features", hostile::status::CHECKS),
    on_bus(Bus::Pci, "hostile-pci", "PCI configuration space", hostile::header::CHECKS),
    on_bus(Bus::Pci, "hostile-vectors", "MSI-X", hostile::vectors::CHECKS),
    on_bus(Bus::Modern, "hostile-common", "The common structure and its BAR", hostile::common::CHECKS),
    on_bus(Bus::Modern, "hostile-window", "The access window", hostile::window::CHECKS),
    on_bus(Bus::Legacy, "hostile-blocks", "Legacy queues and features", hostile::blocks::CHECKS),
    on_bus(Bus::Ports, "hostile-ports", "The ports of the legacy interface", hostile::ports::CHECKS),
    on_bus(Bus::Mmio, "hostile-mmio", "Registers on MMIO", hostile::mmio::CHECKS),
    on_bus(Bus::LegacyMmio, "hostile-legacy-mmio", "Legacy registers on MMIO", hostile::blocks::MMIO),
    general("hostile-resets", "Resets of single queues", hostile::ring_reset::CHECKS),
    of_type(BALLOON, "hostile-frames", "The balloon's frame numbers", hostile::frames::CHECKS),
    of_type(BALLOON, "hostile-balloon", "The balloon's fields", hostile::fields::CHECKS),
    of_type(BALLOON, "hostile-statistics", "The balloon's statistics", hostile::statistics::CHECKS),
    of_type(BALLOON, "hostile-reports", "The balloon's reports", hostile::reports::CHECKS),
    of_type(BALLOON, "hostile-hints", "The balloon's hints", hostile::hints::CHECKS),
];

/// Every check, in the order in which they run.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    by_chapter().map(|(_, check)| check)
}

/// The same, each with its chapter.
pub(crate) fn by_chapter() -> impl Iterator<Item = (&'static Chapter, &'static Check)> {
    CHAPTERS.iter().flat_map(|chapter| chapter.checks.iter().map(move |check| (chapter, check)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_hyphens_and_all_different() {
        for (place, check) in checks().enumerate() {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(check.name.chars().all(fine) && !check.asks.ends_with('.'), "{}", check.name);
            assert!(checks().skip(place + 1).all(|other| other.name != check.name), "{} twice", check.name);
            assert!(CHAPTERS.iter().all(|chapter| chapter.name != check.name), "{} is a chapter", check.name);
        }
    }

    /// The lists of checks in the documentation match the source. `BALLONET_WRITE_DOCS=1` rewrites them.
    #[test]
    fn the_documentation_lists_the_checks() {
        for (file, hostile) in [("checks.md", false), ("hostile.md", true)] {
            let path = format!("{}/../../docs/{file}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap();
            let (head, rest) = text.split_once("<!-- checks -->\n").expect("a mark where the list begins");
            let (_, tail) = rest.split_once("<!-- end of checks -->").expect("a mark where the list ends");
            let is_here = |chapter: &&Chapter| chapter.checks.iter().all(|check| check.is_hostile() == hostile);
            let list: String = CHAPTERS.iter().filter(is_here).map(table).collect();
            let expected = format!("{head}<!-- checks -->\n{list}\n<!-- end of checks -->{tail}");
            if std::env::var_os("BALLONET_WRITE_DOCS").is_some() {
                std::fs::write(&path, &expected).unwrap();
            }
            assert!(
                text == expected || std::env::var_os("BALLONET_WRITE_DOCS").is_some(),
                "docs/{file} is out of date"
            );
        }
    }

    /// A chapter and its table.
    fn table(chapter: &Chapter) -> String {
        let Chapter { name, title, checks, .. } = chapter;
        let hostile = checks.iter().any(Check::is_hostile);
        let columns = if hostile {
            "check | | section | what the driver does | the rule that it breaks |\n|---|---|---|---|---|"
        } else {
            "check | | section | what it requires of the device |\n|---|---|---|---|"
        };
        let mut list = format!("\n### {title}: `checks={name}`\n\n| {columns}\n");
        for Check { name, severity, section, asks, breaks, .. } in *checks {
            let breaks = breaks.map(|rule| format!(" {rule} |")).unwrap_or_default();
            list += &format!("| `{name}` | {severity} | {section} | {asks} |{breaks}\n");
        }
        list
    }

    #[test]
    fn hostile_checks_are_in_hostile_chapters() {
        for chapter in CHAPTERS {
            let hostile = chapter.name.starts_with("hostile-");
            assert!(chapter.checks.iter().all(|check| check.is_hostile() == hostile), "{}", chapter.name);
            assert!(
                chapter.checks.iter().all(|check| check.name.starts_with("hostile-") == hostile),
                "{}",
                chapter.name
            );
        }
        let hostile = checks().filter(|check| check.is_hostile()).count();
        assert!(hostile >= 300, "{hostile}");
    }
}
