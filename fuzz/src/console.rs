//! The serial line as a fuzz input: any bytes typed.

use ballonet_kernel::console::{Edit, LineEditor};

/// Types the keys.
pub fn run(keys: &[u8]) {
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
