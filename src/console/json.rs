//! One JSON object on one line (RFC 8259), written field by field without a buffer.

use core::fmt::{self, Write};

/// Numbers: a function that passes each number to its argument.
pub(super) type Numbers<'n> = &'n dyn Fn(&mut dyn FnMut(u64));

/// Writes a JSON object, from [`Object::begin`] to [`Object::end`].
///
/// Numbers above 2^53 are written in full, although readers that use doubles round them.
pub(crate) struct Object<'a> {
    out: &'a mut dyn Write,
    result: fmt::Result,
}

impl<'a> Object<'a> {
    /// Starts an object for `event`, `ms` milliseconds after the kernel's entry.
    pub(crate) fn begin(out: &'a mut dyn Write, event: &str, ms: u64) -> Self {
        let result = write!(out, "{{\"event\":");
        let mut object = Self { out, result };
        object.write_text(event);
        object.number("ms", ms);
        object
    }

    /// Ends the object and its line.
    ///
    /// # Errors
    /// When any write to `out` failed.
    pub(crate) fn end(self) -> fmt::Result {
        self.result?;
        self.out.write_str("}\n")
    }

    /// Adds a string.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        self.write_text(value);
        self
    }

    /// Adds a displayed value as a string.
    pub(crate) fn display(&mut self, name: &str, value: &dyn fmt::Display) -> &mut Self {
        self.name(name);
        self.put(format_args!("\""));
        let escaped = write!(Escaped(self.out), "{value}");
        self.note(escaped);
        self.put(format_args!("\""));
        self
    }

    /// Adds a whole number.
    pub(crate) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        self.put(format_args!("{value}"));
        self
    }

    /// Adds a number, given in thousandths.
    pub(crate) fn thousandths(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        self.put(format_args!("{}.{:03}", value / 1000, value % 1000));
        self
    }

    /// Adds `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.put(format_args!("{value}"));
        self
    }

    /// Adds a number as a string of hexadecimal digits, since 64 bits do not fit every reader's numbers.
    pub(crate) fn hex(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        self.put(format_args!("\"{value:#x}\""));
        self
    }

    /// Adds a list of numbers as strings of hexadecimal digits.
    pub(crate) fn hex_list(&mut self, name: &str, values: Numbers<'_>) -> &mut Self {
        self.name(name);
        self.put(format_args!("["));
        let mut comma = "";
        values(&mut |value| {
            self.put(format_args!("{comma}\"{value:#x}\""));
            comma = ",";
        });
        self.put(format_args!("]"));
        self
    }

    /// Adds a list of strings.
    pub(crate) fn text_list<'t>(&mut self, name: &str, values: impl Iterator<Item = &'t str>) -> &mut Self {
        self.name(name);
        self.put(format_args!("["));
        for (index, value) in values.enumerate() {
            if index != 0 {
                self.put(format_args!(","));
            }
            self.write_text(value);
        }
        self.put(format_args!("]"));
        self
    }

    fn name(&mut self, name: &str) {
        self.put(format_args!(","));
        self.write_text(name);
        self.put(format_args!(":"));
    }

    fn write_text(&mut self, text: &str) {
        self.put(format_args!("\""));
        let escaped = Escaped(self.out).write_str(text);
        self.note(escaped);
        self.put(format_args!("\""));
    }

    fn put(&mut self, arguments: fmt::Arguments<'_>) {
        let result = self.out.write_fmt(arguments);
        self.note(result);
    }

    fn note(&mut self, result: fmt::Result) {
        self.result = self.result.and(result);
    }
}

/// A writer that escapes characters as a JSON string requires.
struct Escaped<'a>(&'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(place) = rest.find(|c: char| c == '"' || c == '\\' || c.is_control()) {
            let (plain, special) = rest.split_at(place);
            self.0.write_str(plain)?;
            let mut characters = special.chars();
            match characters.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                Some(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn written(fill: impl FnOnce(&mut Object<'_>)) -> serde_json::Value {
        let mut line = String::new();
        let mut object = Object::begin(&mut line, "test", 7);
        fill(&mut object);
        object.end().unwrap();
        let text = line.strip_suffix('\n').expect("a line ends");
        assert!(text.ends_with('}') && text.chars().all(|c| c >= ' '), "one line: {line:?}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn every_kind_of_field_is_valid_json() {
        let value = written(|object| {
            object
                .text("text", "plain")
                .number("number", 42)
                .thousandths("part", 1_025)
                .boolean("truth", true)
                .hex("hex", 0xBEEF)
                .hex_list("addresses", &|each| [1, 255].into_iter().for_each(each))
                .text_list("names", ["a", "b"].into_iter())
                .display("shown", &1.5);
        });
        let expected = serde_json::json!({
            "event": "test", "ms": 7, "text": "plain", "number": 42, "part": 1.025, "truth": true, "hex": "0xbeef",
            "addresses": ["0x1", "0xff"], "names": ["a", "b"], "shown": "1.5",
        });
        assert_eq!(value, expected);
    }

    /// A field of any kind.
    #[derive(Debug, Clone)]
    enum Field {
        Text(String),
        Displayed(String),
        Number(u64),
        Truth(bool),
        Digits(u64),
        Numbers(Vec<u64>),
        Texts(Vec<String>),
    }

    impl Field {
        /// Adds it to an object, and returns what a reader must find.
        fn add(&self, object: &mut Object<'_>, name: &str) -> serde_json::Value {
            let digits = |number: &u64| format!("{number:#x}");
            match self {
                Self::Text(text) => object.text(name, text),
                Self::Displayed(text) => object.display(name, text),
                Self::Number(number) => object.number(name, *number),
                Self::Truth(truth) => object.boolean(name, *truth),
                Self::Digits(number) => object.hex(name, *number),
                Self::Numbers(numbers) => object.hex_list(name, &|each| numbers.iter().copied().for_each(each)),
                Self::Texts(texts) => object.text_list(name, texts.iter().map(String::as_str)),
            };
            match self {
                Self::Text(text) | Self::Displayed(text) => serde_json::json!(text),
                Self::Number(number) => serde_json::json!(number),
                Self::Truth(truth) => serde_json::json!(truth),
                Self::Digits(number) => serde_json::json!(digits(number)),
                Self::Numbers(numbers) => serde_json::json!(numbers.iter().map(digits).collect::<Vec<_>>()),
                Self::Texts(texts) => serde_json::json!(texts),
            }
        }
    }

    fn field() -> impl Strategy<Value = Field> {
        prop_oneof![
            any::<String>().prop_map(Field::Text),
            any::<String>().prop_map(Field::Displayed),
            any::<u64>().prop_map(Field::Number),
            any::<bool>().prop_map(Field::Truth),
            any::<u64>().prop_map(Field::Digits),
            prop::collection::vec(any::<u64>(), 0..9).prop_map(Field::Numbers),
            prop::collection::vec(any::<String>(), 0..9).prop_map(Field::Texts),
        ]
    }

    proptest! {
        #[test]
        fn any_fields_are_read_as_they_were_written(fields in prop::collection::vec(field(), 0..12)) {
            let mut expected = serde_json::json!({ "event": "test", "ms": 7 });
            let value = written(|object| {
                for (index, field) in fields.iter().enumerate() {
                    expected[index.to_string()] = field.add(object, &index.to_string());
                }
            });
            prop_assert_eq!(value, expected);
        }

        #[test]
        fn any_text_survives_escaping(text: String) {
            let value = written(|object| { object.text("text", &text).display("shown", &text); });
            prop_assert_eq!(value["text"].as_str(), Some(text.as_str()));
            prop_assert_eq!(value["shown"].as_str(), Some(text.as_str()));
        }
    }
}
