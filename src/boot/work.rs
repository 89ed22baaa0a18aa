//! The option `work=KIND:SIZE`: a program that uses memory, to see what becomes of it.

use super::parse_size;

/// What a program does with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkKind {
    /// Takes it all, gives it all back, and again.
    Sawtooth,
    /// Takes it and keeps it.
    Steady,
    /// Takes and gives back pieces at random.
    Churn,
    /// Takes it once, looks whether it keeps what is written to it, gives it back, and ends.
    Verify,
}

impl WorkKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sawtooth, Self::Steady, Self::Churn, Self::Verify];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sawtooth => "sawtooth",
            Self::Steady => "steady",
            Self::Churn => "churn",
            Self::Verify => "verify",
        }
    }
}

/// A program to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkChoice {
    /// What it does.
    pub kind: WorkKind,
    /// With how many bytes; never 0.
    pub size: u64,
}

impl WorkChoice {
    /// Reads `KIND:SIZE`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, size) = text.split_once(':')?;
        let kind = WorkKind::ALL.into_iter().find(|known| known.word() == kind)?;
        let size = parse_size(size).ok().filter(|size| *size > 0)?;
        Some(Self { kind, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_with_a_size() {
        for kind in WorkKind::ALL {
            let text = format!("{}:512M", kind.word());
            assert_eq!(WorkChoice::parse(&text), Some(WorkChoice { kind, size: 512 << 20 }));
        }
    }

    #[test]
    fn what_is_not_a_kind_and_a_size_is_refused() {
        for text in
            ["", ":", "sawtooth", "sawtooth:", "sawtooth:0", ":1M", "saw:1M", "steady:1X", "steady:1M:1M", "STEADY:1M"]
        {
            assert_eq!(WorkChoice::parse(text), None, "{text}");
        }
    }
}
