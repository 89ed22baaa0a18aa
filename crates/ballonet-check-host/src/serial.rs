//! The guest's serial line: bytes become lines of bounded length, and lines that are events of the kernel become
//! [`Said`].
//!
//! The line carries anything: firmware messages, a VMM's log, terminal control sequences, or a flood from a broken VMM.
//! Memory is bounded, and a line that is no event is skipped.

use serde_json::Value;

/// The longest line that is kept, in bytes. The kernel's are shorter.
const LINE_MAX: usize = 64 * 1024;
/// The longest text that is kept of a field, in bytes.
const TEXT_MAX: usize = 4096;

/// What the kernel says about checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The kernel runs.
    Alive,
    /// A check begins.
    Started { name: String },
    /// A check has ended.
    Ended(CheckEvent),
    /// The check wants the host to do something, and then to set a target of so many bytes, if any.
    Host { action: String, target: Option<u64> },
    /// All checks have ended; why early, if they did.
    Summary { ended: Option<String> },
    /// The kernel faulted or panicked.
    Crashed(String),
    /// Lines were lost.
    Lost(u64),
}

/// A `check` event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CheckEvent {
    /// The check.
    pub(crate) name: String,
    /// The device's address.
    pub(crate) device: Option<String>,
    /// False if the device failed it.
    pub(crate) ok: bool,
    /// The kernel's word for the outcome.
    pub(crate) verdict: Option<String>,
    /// What the device did, if it failed.
    pub(crate) detail: Option<String>,
    /// Why it was skipped.
    pub(crate) skipped: Option<String>,
    /// Why the tester could not check.
    pub(crate) trouble: Option<String>,
}

/// Splits bytes into lines. Lines that are too long are dropped whole.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes bytes and calls `take` with each line that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.last() == Some(&b'\n');
            let text = if ends { &piece[..piece.len() - 1] } else { piece };
            if self.line.len() + text.len() > LINE_MAX {
                self.too_long = true;
                self.line.clear();
            }
            if !self.too_long {
                self.line.extend_from_slice(text);
            }
            if ends {
                if !self.too_long {
                    take(&self.line);
                }
                self.too_long = false;
                self.line.clear();
            }
        }
    }
}

/// The event in a line, if it says something about checks.
pub(crate) fn parse(line: &[u8]) -> Option<Said> {
    const START: &[u8] = b"{\"event\"";
    // A reset or another writer cuts a line short, and the next event follows on it. Quotes inside a text are escaped.
    let start = line.windows(START.len()).rposition(|window| window == START)?;
    let event: Value = serde_json::Deserializer::from_slice(&line[start..]).into_iter().next()?.ok()?;
    let text = |field: &str| event[field].as_str().map(|text| shorten(text, TEXT_MAX));
    Some(match event["event"].as_str()? {
        "check-started" => Said::Started { name: text("name")? },
        "check" => Said::Ended(CheckEvent {
            name: text("name")?,
            device: text("device"),
            ok: event["ok"].as_bool()?,
            verdict: text("verdict"),
            detail: text("detail"),
            skipped: text("skipped"),
            trouble: text("trouble"),
        }),
        "host" => {
            let target = event.get("target").map(|target| target.as_u64().ok_or(()));
            Said::Host { action: text("action")?, target: target.transpose().ok()? }
        }
        "checks" => Said::Summary { ended: text("ended") },
        "panic" => Said::Crashed(format!("the guest kernel panicked: {}", text("message").unwrap_or_default())),
        "fault" => Said::Crashed(format!(
            "the guest kernel faulted: {} at rip {}",
            text("name").unwrap_or_default(),
            text("rip").unwrap_or_default()
        )),
        "lost" => Said::Lost(event["lines"].as_u64()?),
        _ => Said::Alive,
    })
}

/// The beginning of a text, without control characters.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let mut short = String::new();
    for letter in text.chars() {
        if short.len() + letter.len_utf8() > most {
            return short + "…";
        }
        short.push(if letter.is_control() { ' ' } else { letter });
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heard(bytes: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        Lines::default().push(bytes, |line| said.extend(parse(line)));
        said
    }

    fn started(name: &str) -> Said {
        Said::Started { name: name.into() }
    }

    #[test]
    fn events_are_read() {
        let check = br#"{"event":"check","ms":7,"name":"a","severity":"must","section":"2.1","device":"00:02.0","ok":false,"detail":"it is 3"}"#;
        let expected = CheckEvent {
            name: "a".into(),
            device: Some("00:02.0".into()),
            detail: Some("it is 3".into()),
            ..CheckEvent::default()
        };
        assert_eq!(parse(check), Some(Said::Ended(expected)));
        assert_eq!(parse(br#"{"event":"check-started","ms":7,"name":"a"}"#), Some(started("a")));
        let host = Said::Host { action: "pause".into(), target: Some(8192) };
        assert_eq!(parse(br#"{"event":"host","ms":7,"action":"pause","target":8192}"#), Some(host));
        assert_eq!(parse(br#"{"event":"host","ms":7,"action":"pause","target":-1}"#), None);
        let host = Said::Host { action: "plug".into(), target: None };
        assert_eq!(parse(br#"{"event":"host","ms":7,"action":"plug"}"#), Some(host));
        assert_eq!(parse(br#"{"event":"checks","ms":7,"ok":true}"#), Some(Said::Summary { ended: None }));
        assert_eq!(parse(br#"{"event":"lost","ms":7,"lines":3}"#), Some(Said::Lost(3)));
        assert_eq!(parse(br#"{"event":"log","ms":7}"#), Some(Said::Alive));
        assert!(
            matches!(parse(br#"{"event":"panic","message":"x"}"#), Some(Said::Crashed(text)) if text.ends_with(": x"))
        );
    }

    #[test]
    fn garbage_around_an_event_does_no_harm() {
        let bytes = b"\x1b[2J\xff\xfeSeaBIOS {\"event\":\"lo{\"event\":\"check-started\",\"name\":\"a\"}\r\n\0\0{}\n{\"event\":3}\nnull\n";
        assert_eq!(heard(bytes), [started("a")]);
        assert_eq!(heard(b"{\"event\":\"check-started\",\"name\":\"a\"}[vmm] log line\n"), [started("a")]);
        assert_eq!(heard(b"{\"event\":\"check-started\",\"name\":\"cut"), []);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut lines = Lines::default();
        let mut said = Vec::new();
        for _ in 0..100 {
            lines.push(&[b'x'; 10_000], |_| unreachable!("no line ends"));
            assert!(lines.line.capacity() <= 2 * LINE_MAX);
        }
        lines.push(b"\n{\"event\":\"check-started\",\"name\":\"a\"}\n", |line| said.extend(parse(line)));
        assert_eq!(said, [started("a")]);
        let deep = [b"{\"event\":\"check\",\"x\":".as_slice(), &[b'['; 60_000]].concat();
        assert_eq!(parse(&deep), None);
    }

    #[test]
    fn texts_are_bounded() {
        let long = format!(r#"{{"event":"check-started","name":"{}"}}"#, "é".repeat(9000));
        let Some(Said::Started { name }) = parse(long.as_bytes()) else { panic!("it is an event") };
        assert!(name.len() <= TEXT_MAX + 3 && name.ends_with('…'));
    }

    proptest! {
        /// Any bytes, however they are cut into reads, give the same events, and no panic.
        #[test]
        fn reads_may_be_cut_anywhere(
            pieces in proptest::collection::vec(prop_oneof![
                Just(b"{\"event\":\"check-started\",\"name\":\"a\"}\n".to_vec()),
                Just(b"{\"event\":\"check\",\"name\":\"a\",\"ok\":true}\r\n".to_vec()),
                Just(b"{\"event\":".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..40),
            ], 0..20),
            step in 1_usize..50,
        ) {
            let bytes = pieces.concat();
            let mut lines = Lines::default();
            let mut said = Vec::new();
            for piece in bytes.chunks(step) {
                lines.push(piece, |line| said.extend(parse(line)));
            }
            prop_assert_eq!(said, heard(&bytes));
        }
    }
}
