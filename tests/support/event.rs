//! An event of a kernel that runs with `log=json`: a line on the serial port that is one JSON object.

use std::fmt;

use ballonet_kernel::console::events::{self, FieldSpec, Kind};
use serde_json::Value;

use super::failure::{Outcome, ensure};

/// An event: a name, a time, and fields of its own.
#[derive(Debug, Clone)]
pub(crate) struct Event(Value);

impl Event {
    /// Parses a line.
    ///
    /// A reset cuts short the line that the kernel is writing, and the next boot's first event follows on the same
    /// line; then the result is that event.
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
        event.expect_declared()?;
        Ok(event)
    }

    /// Checks that the kernel declares the event, with exactly these fields.
    fn expect_declared(&self) -> Outcome {
        let declared = events::named(self.name()).ok_or_else(|| format!("an undeclared event: {self}"))?;
        let object = self.0.as_object().ok_or("not an object")?;
        for name in object.keys().filter(|name| !["event", "ms"].contains(&name.as_str())) {
            let known = declared.fields.iter().any(|field| field.name == name);
            ensure!(known, "an undeclared field `{name}`: {self}");
        }
        for field in declared.fields {
            match object.get(field.name) {
                Some(value) => ensure!(has_form(field, value), "`{}` is not {:?}: {self}", field.name, field.kind),
                None => ensure!(field.optional, "no `{}`: {self}", field.name),
            }
        }
        Ok(())
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

    /// A field that may be missing, as raw JSON.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Whether the event reports a bug in the kernel or a failed test.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.name(), "panic" | "fault")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whether a value has the declared form of a field.
fn has_form(field: &FieldSpec, value: &Value) -> bool {
    let is_hex = |value: &Value| {
        let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
        digits.is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok())
    };
    let all = |is: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(is));
    match field.kind {
        Kind::Whole => value.is_u64(),
        Kind::Decimal => value.is_number(),
        Kind::Boolean => value.is_boolean(),
        Kind::Text => value.is_string(),
        Kind::Texts => all(&Value::is_string),
        Kind::Hex => is_hex(value),
        Kind::Hexes => all(&is_hex),
    }
}
