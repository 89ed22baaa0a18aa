//! Values that are one of a few words.

use core::fmt;

use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};

use super::declare::choices;

/// A value that is one of a few words.
pub(crate) trait Word: Copy + PartialEq + fmt::Debug + 'static {
    /// All values, in the order in which they are listed.
    const ALL: &'static [Self];

    /// The word for it.
    fn word(self) -> &'static str;

    /// The value that `word` stands for.
    fn from_word(word: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|choice| choice.word().as_bytes() == word)
    }

    /// The word at a place in the list.
    fn nth(place: usize) -> Option<&'static str> {
        Self::ALL.get(place).map(|choice| choice.word())
    }
}

impl Word for InterruptMode {
    const ALL: &'static [Self] = &Self::LADDER;

    fn word(self) -> &'static str {
        self.into()
    }
}

impl Word for TransportKind {
    const ALL: &'static [Self] = &[Self::Modern, Self::Legacy];

    fn word(self) -> &'static str {
        self.into()
    }
}

impl Word for RingFormat {
    const ALL: &'static [Self] = &[Self::Split, Self::Packed];

    fn word(self) -> &'static str {
        self.into()
    }
}

choices! {
    /// What the kernel does.
    Mode {
        /// Run the balloon, with a console on the serial line.
        Serve = "serve",
        /// Check the device.
        Check = "check",
        /// Measure the device.
        Bench = "bench",
    }

    /// How a modern device's structures are reached.
    AccessChoice {
        /// Mapped where possible, else through configuration space.
        Auto = "auto",
        /// Through the device's window in configuration space (virtio 1.4, 4.1.4.9).
        Window = "window",
    }

    /// Which CPUs message-signalled interrupts go to.
    AffinityChoice {
        /// All of them, evenly.
        Spread = "spread",
        /// The boot CPU, which does the work that follows.
        Boot = "boot",
    }

    /// How hot-plug slots are served.
    HotplugChoice {
        /// With the waits that PCI Express requires.
        On = "on",
        /// Without waits for the user, power and links: virtual machines need none.
        Prompt = "prompt",
        /// Not at all.
        Off = "off",
    }

    /// What happens to ballooned memory when the machine is switched off.
    PoweroffChoice {
        /// The host keeps it.
        Keep = "keep",
        /// The balloon deflates first.
        Deflate = "deflate",
    }

    /// The format of the log on the serial line.
    LogFormat {
        /// Lines for people.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }

    /// The version of the Test Anything Protocol that `mode=check` writes.
    TapVersion {
        /// The one that most readers accept; Perl's `prove` refuses any later one.
        V13 = "13",
        /// The latest.
        V14 = "14",
    }

    /// What the other end of the serial line understands.
    Terminal {
        /// Lines only.
        Plain = "plain",
        /// ANSI escape sequences: cursor movement, erasing.
        Ansi = "ansi",
    }

    /// Whether the screen is used.
    ScreenChoice {
        /// If there is one.
        Auto = "auto",
        /// No.
        Off = "off",
    }
}
