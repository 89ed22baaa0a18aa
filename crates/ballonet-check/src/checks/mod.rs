//! The checks, by chapter. A chapter is one file with one constant, in which each check stands with its name, its severity,
//! its clause, the sentence for people and its function; listing, selection and documents are made from it.

mod balloon;
mod configuration;
mod configuration_space;
mod feature_sets;
mod features;
mod formats;
mod hostile;
mod interrupts;
mod layouts;
mod queues;
mod resets;
mod rings;
mod status;

use crate::check::Check;

/// Checks on one subject.
#[derive(Debug, Clone, Copy)]
pub struct Chapter {
    /// Its name, by which all its checks can be selected: one word, or several joined by hyphens. No check is named like it.
    pub name: &'static str,
    /// What it is about: a phrase that can be a heading.
    pub title: &'static str,
    /// Its checks, in the order in which they run.
    pub checks: &'static [Check],
}

/// Every chapter, in the order in which they run.
pub const CHAPTERS: &[Chapter] = &[
    Chapter { name: "config-space", title: "PCI configuration space", checks: configuration_space::CHECKS },
    Chapter { name: "status", title: "Status and reset", checks: status::CHECKS },
    Chapter { name: "features", title: "Feature negotiation", checks: features::CHECKS },
    Chapter { name: "queues", title: "Queue registers, doorbells and vectors", checks: queues::CHECKS },
    Chapter { name: "config", title: "Device configuration", checks: configuration::CHECKS },
    Chapter { name: "rings", title: "Rings", checks: rings::CHECKS },
    Chapter { name: "interrupts", title: "Interrupts", checks: interrupts::CHECKS },
    Chapter { name: "layouts", title: "Legal layouts of rings and requests", checks: layouts::CHECKS },
    Chapter { name: "feature-sets", title: "Features at work", checks: feature_sets::CHECKS },
    Chapter { name: "balloon", title: "The balloon's own queues and fields", checks: balloon::CHECKS },
    Chapter { name: "resets", title: "Resets at work", checks: resets::CHECKS },
    Chapter { name: "hostile-split", title: "Split rings", checks: hostile::split::CHECKS },
    Chapter { name: "hostile-addresses", title: "Addresses and lengths", checks: hostile::addresses::CHECKS },
    Chapter { name: "hostile-tables", title: "Tables of descriptors", checks: hostile::indirect::CHECKS },
    Chapter { name: "hostile-more-tables", title: "Tables in one format", checks: hostile::indirect::MORE },
    Chapter { name: "hostile-packed", title: "Packed rings", checks: hostile::packed::CHECKS },
    Chapter { name: "hostile-setup", title: "Queue set-up", checks: hostile::setup::CHECKS },
    Chapter { name: "hostile-kicks", title: "Notifications", checks: hostile::notifications::CHECKS },
    Chapter { name: "hostile-status", title: "Status and features", checks: hostile::status::CHECKS },
    Chapter { name: "hostile-pci", title: "PCI", checks: hostile::pci::CHECKS },
    Chapter { name: "hostile-resets", title: "Resets of single queues", checks: hostile::ring_reset::CHECKS },
    Chapter { name: "hostile-frames", title: "Frame numbers", checks: hostile::balloon::FRAMES },
    Chapter {
        name: "hostile-balloon",
        title: "The balloon's other queues and fields",
        checks: hostile::balloon::CHECKS,
    },
];

/// Every check, in the order in which they run.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    CHAPTERS.iter().flat_map(|chapter| chapter.checks)
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
        let Chapter { name, title, checks } = chapter;
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
