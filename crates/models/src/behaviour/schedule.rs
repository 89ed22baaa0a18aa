//! Choices that a device makes: how long a request takes, which one is finished first, when an interrupt arrives.

/// A finite list of choices, used cyclically. proptest generates and shrinks it; the default always chooses 0.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    choices: Vec<u16>,
    next: usize,
}

impl Schedule {
    pub fn new(choices: Vec<u16>) -> Self {
        Self { choices, next: 0 }
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if self.choices.is_empty() || bound == 0 {
            return 0;
        }
        let choice = self.choices[self.next % self.choices.len()];
        self.next += 1;
        u64::from(choice) * bound / 65536
    }
}
