//! One event of a kernel that runs with `log=json`: a line on the serial port that is one JSON object.

use std::fmt;

use serde_json::Value;

use super::failure::Outcome;

/// An event: it has a name and a time, and fields of its own.
#[derive(Debug, Clone)]
pub(crate) struct Event(Value);

impl Event {
    /// Reads a line.
    ///
    /// A reset cuts short the line that the kernel writes, and the next boot's first event follows on the same line;
    /// the result is that event.
    pub(crate) fn parse(line: &str) -> Outcome<Self> {
        let whole = serde_json::from_str::<Value>(line);
        let value = match line.rfind("{\"event\"") {
            Some(start) if start > 0 && whole.is_err() => serde_json::from_str(&line[start..]),
            _ => whole,
        }
        .map_err(|error| format!("not a JSON object: {line:?}: {error}"))?;
        let event = Self(value);
        event.text("event")?;
        event.number("ms")?;
        Ok(event)
    }

    /// The event's name.
    pub(crate) fn name(&self) -> &str {
        self.0["event"].as_str().unwrap_or_default()
    }

    /// A field that is a string.
    pub(crate) fn text(&self, field: &str) -> Outcome<&str> {
        Ok(self.0[field].as_str().ok_or_else(|| format!("no string `{field}` in {self}"))?)
    }

    /// A field that is a number, and not negative.
    pub(crate) fn number(&self, field: &str) -> Outcome<f64> {
        let number = self.0[field].as_f64().filter(|number| *number >= 0.0);
        Ok(number.ok_or_else(|| format!("no number `{field}` in {self}"))?)
    }

    /// A field that counts bytes or the like.
    pub(crate) fn count(&self, field: &str) -> Outcome<u64> {
        Ok(self.0[field].as_u64().ok_or_else(|| format!("no whole number `{field}` in {self}"))?)
    }

    /// A field that is true or false.
    pub(crate) fn flag(&self, field: &str) -> Outcome<bool> {
        Ok(self.0[field].as_bool().ok_or_else(|| format!("no true or false `{field}` in {self}"))?)
    }

    /// A field that may be missing, as the kernel wrote it.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Whether the event reports a bug: the kernel or one of its tests has failed.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.name(), "panic" | "fault")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
