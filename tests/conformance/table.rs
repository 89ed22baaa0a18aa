//! The table: one clause per line, columns separated by tabs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::proof::Proof;

/// The columns, as the first line must name them.
const COLUMNS: [&str; 7] = ["id", "section", "level", "clause", "standing", "proof", "note"];

/// Requirement levels.
const LEVELS: [&str; 5] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"];

/// Number of lines in the companion's list of defects.
pub const DEFECTS: usize = 14;

/// The areas, and the number of clauses in each. Clauses are numbered from 1 without gaps.
const AREAS: [(&str, usize); 53] = [
    ("STATUS", 4),
    ("FEAT", 10),
    ("RESET", 1),
    ("CFG", 6),
    ("QRST", 3),
    ("SPLIT-LAY", 1),
    ("SPLIT-FRAME", 2),
    ("SPLIT-DESC", 4),
    ("SPLIT-IND", 5),
    ("SPLIT-AVAIL", 1),
    ("SPLIT-USUP", 5),
    ("SPLIT-USED", 2),
    ("SPLIT-ASUP", 7),
    ("SPLIT-IDX", 2),
    ("SPLIT-NOTIF", 1),
    ("SPLIT-RX", 1),
    ("PACKED-LAY", 1),
    ("PACKED-DESC", 4),
    ("PACKED-SG", 6),
    ("PACKED-IND", 4),
    ("PACKED-FLAGS", 2),
    ("PACKED-NOTIF", 1),
    ("PACKED-RX", 1),
    ("INIT", 14),
    ("CLEAN", 2),
    ("SUSP", 6),
    ("PCI-DISC", 4),
    ("PCI-ACC", 5),
    ("PCI-CAP", 9),
    ("PCI-COMMON", 11),
    ("PCI-ISR", 1),
    ("PCI-VNDR", 2),
    ("PCI-CFGACC", 2),
    ("PCI-MSIX", 6),
    ("PCI-NOTIF", 6),
    ("PCI-CFGCHG", 1),
    ("MMIO-REG", 14),
    ("MMIO-INIT", 2),
    ("MMIO-INT", 3),
    ("RSVD", 13),
    ("BAL-FEAT", 3),
    ("BAL-OP", 12),
    ("BAL-STATS", 8),
    ("BAL-HINT", 10),
    ("BAL-POISON", 3),
    ("BAL-REPORT", 6),
    ("LEG-CORE", 4),
    ("LEG-VQ", 4),
    ("LEG-INIT", 1),
    ("LEG-RSVD", 2),
    ("LEG-PCI", 7),
    ("LEG-MMIO", 3),
    ("LEG-BAL", 5),
];

/// The area about the table itself.
const CONFORMANCE: (&str, usize) = ("CONF", 3);

/// How the driver meets a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Tests prove that the driver follows it.
    Proved,
    /// It applies to drivers that accept a feature; tests prove that this one does not.
    NotAccepted,
    /// No test can decide it; the note argues it.
    Argued,
    /// It does not apply; the note says why.
    NotApplicable,
}

impl Standing {
    pub const ALL: [Self; 4] = [Self::Proved, Self::NotAccepted, Self::Argued, Self::NotApplicable];

    /// The table's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::NotAccepted => "not accepted",
            Self::Argued => "argued",
            Self::NotApplicable => "n-a",
        }
    }

    fn needs_proof(self) -> bool {
        matches!(self, Self::Proved | Self::NotAccepted)
    }

    fn needs_reason(self) -> bool {
        matches!(self, Self::Argued | Self::NotApplicable)
    }
}

/// A clause.
#[derive(Debug)]
pub struct Row {
    pub id: String,
    section: String,
    level: String,
    clause: String,
    pub standing: Option<Standing>,
    pub proofs: Vec<String>,
    note: String,
    /// Its line in the file.
    line: String,
}

/// All clauses, valid or not.
#[derive(Debug)]
pub struct Table {
    header: String,
    pub rows: Vec<Row>,
}

impl Row {
    fn parse(line: &str) -> Self {
        let mut cells = line.split('\t');
        let mut next = || cells.next().unwrap_or_default().to_owned();
        let (id, section, level, clause, standing) = (next(), next(), next(), next(), next());
        let proofs = next().split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let standing = Standing::ALL.into_iter().find(|known| known.word() == standing);
        Self { id, section, level, clause, standing, proofs, note: next(), line: line.to_owned() }
    }

    fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        let mut check = |right: bool, what: &str| {
            if !right {
                flaws.push(format!("{}: {what}: {}", self.id, self.line));
            }
        };
        check(self.line.split('\t').count() == COLUMNS.len(), "its number of columns is not the header's");
        check(!self.line.split('\t').any(|cell| cell.trim() != cell), "spaces around a cell");
        check(!self.line.contains("  "), "two spaces");
        check(self.section.starts_with(|c: char| c.is_ascii_digit()), "no section");
        check(LEVELS.contains(&self.level.as_str()), "no such level");
        check(self.clause.split(' ').count() >= 3 && self.clause.ends_with('.'), "no sentence");
        check(self.standing.is_some(), "no such standing");
        let standing = self.standing.unwrap_or(Standing::Proved);
        check(!standing.needs_proof() || !self.proofs.is_empty(), "no proof");
        check(standing != Standing::NotApplicable || self.proofs.is_empty(), "a proof, although it does not apply");
        check(!standing.needs_reason() || self.note.split(' ').count() >= 3, "no reason");
        check(self.proofs.iter().all(|proof| Proof::is_one(proof)), "an invalid proof");
        let distinct: BTreeSet<_> = self.proofs.iter().collect();
        check(distinct.len() == self.proofs.len(), "the same proof twice");
        flaws
    }
}

impl Table {
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let header = lines.next().unwrap_or_default().to_owned();
        Self { header, rows: lines.map(Row::parse).collect() }
    }

    /// All flaws except dead proofs, one per line.
    pub fn flaws(&self) -> Vec<String> {
        let mut flaws: Vec<_> = self.rows.iter().flat_map(Row::flaws).collect();
        if self.header != COLUMNS.join("\t") {
            flaws.push(format!("the header is {:?}", self.header));
        }
        // In order and each once, so comparing two lists suffices.
        let expected: Vec<_> = AREAS.into_iter().chain([CONFORMANCE]).flat_map(ids).collect();
        let found: Vec<_> = self.rows.iter().map(|row| row.id.clone()).collect();
        if expected != found {
            let mut what = String::from("the clauses are not the expected ones in order:");
            let missing = expected.iter().filter(|id| !found.contains(id));
            let unknown = found.iter().filter(|id| !expected.contains(id));
            let twice = found.iter().enumerate().filter(|(at, id)| found[..*at].contains(id)).map(|(_, id)| id);
            for (word, ids) in
                [("missing", missing.collect::<Vec<_>>()), ("unknown", unknown.collect()), ("twice", twice.collect())]
            {
                let _ = write!(what, " {word} {ids:?}");
            }
            flaws.push(what);
        }
        flaws
    }
}

/// The ids of an area.
fn ids((area, count): (&str, usize)) -> impl Iterator<Item = String> {
    (1..=count).map(move |number| format!("{area}-{number:02}"))
}
