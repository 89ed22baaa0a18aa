//! The serial line as a fuzz input: any bytes typed, and any values written as JSON or as progress.

use arbitrary::Arbitrary;
use ballonet_kernel::console::{Edit, LineEditor, Movement, Object};
use serde_json::{Map, Value, json};

/// What is typed or written.
#[derive(Debug, Arbitrary)]
pub enum Input<'a> {
    /// Keys.
    Typed(&'a [u8]),
    /// Fields of a JSON object.
    Written(Vec<Field<'a>>),
    /// The balloon moves: sizes and times.
    Moved { actual: u64, target: u64, begun: u64, steps: Vec<(u64, u64)> },
}

/// A field of a JSON object.
#[derive(Debug, Arbitrary)]
pub enum Field<'a> {
    Text(&'a str),
    Displayed(&'a str),
    Number(u64),
    Truth(bool),
    Digits(u64),
    Numbers(Vec<u64>),
    Texts(Vec<&'a str>),
}

/// Types or writes the input.
pub fn run(input: &Input<'_>) {
    match input {
        Input::Typed(keys) => edit(keys),
        Input::Written(fields) => write(fields),
        Input::Moved { actual, target, begun, steps } => moved(Movement::begin(*actual, *target, *begun), steps),
    }
}

fn edit(keys: &[u8]) {
    let mut editor = LineEditor::new();
    for key in keys {
        let before = editor.text().to_owned();
        match editor.feed(*key) {
            Edit::Nothing | Edit::Complete | Edit::Clear | Edit::Turn(_) => assert_eq!(editor.text(), before),
            Edit::Changed => {}
            Edit::Line(line) => assert_eq!((line, editor.text()), (before, "")),
        }
        let text = editor.text();
        assert!(text.len() <= 120 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
        assert!(editor.right_of_cursor() <= text.len());
    }
    // Whatever was typed: the end of an escape sequence and Ctrl-C must bring back an empty line.
    for key in *b"~\x03help" {
        editor.feed(key);
    }
    assert_eq!(editor.feed(b'\r'), Edit::Line("help".into()));
}

fn write(fields: &[Field<'_>]) {
    let (mut out, mut expected) = (String::new(), Map::new());
    expected.insert("event".into(), json!("fuzz"));
    expected.insert("ms".into(), json!(u64::MAX));
    let mut object = Object::begin(&mut out, "fuzz", u64::MAX);
    let digits = |number: &u64| format!("{number:#x}");
    for (index, field) in fields.iter().enumerate() {
        let name = &index.to_string();
        let value: Value = match field {
            Field::Text(text) => {
                object.text(name, text);
                json!(text)
            }
            Field::Displayed(text) => {
                object.display(name, text);
                json!(text)
            }
            Field::Number(number) => {
                object.number(name, *number);
                json!(number)
            }
            Field::Truth(truth) => {
                object.boolean(name, *truth);
                json!(truth)
            }
            Field::Digits(number) => {
                object.hex(name, *number);
                json!(digits(number))
            }
            Field::Numbers(numbers) => {
                object.hex_list(name, &|each| numbers.iter().copied().for_each(each));
                json!(numbers.iter().map(digits).collect::<Vec<_>>())
            }
            Field::Texts(texts) => {
                object.text_list(name, texts.iter().copied());
                json!(texts)
            }
        };
        expected.insert(name.clone(), value);
    }
    object.end().expect("a string takes everything");
    let line = out.strip_suffix('\n').expect("a line ends");
    assert!(line.chars().all(|c| c >= ' '), "{line:?}");
    assert_eq!(serde_json::from_str::<Value>(line).expect("JSON"), Value::Object(expected));
}

fn moved(mut movement: Movement, steps: &[(u64, u64)]) {
    for (actual, now) in steps {
        movement.advance(*actual, *now);
        assert!(movement.percent() <= 100 && movement.elapsed() > 0);
        assert!(!movement.is_done() || movement.percent() == 100, "{movement:?}");
        assert!(movement.to_string().ends_with("GiB/s"));
    }
}
