//! The events that the kernel writes with `log=json`: one JSON object per line.
//!
//! Each event is declared once, in the file of its group. The declaration generates the struct that the kernel fills
//! in, so that an event has exactly its declared fields, and an entry of [`groups`]. From those entries
//! docs/events.md is generated, and against them the tests in QEMU check every line.

mod answers;
mod balloon;
mod declare;
mod field;
mod machine;
mod modes;
mod spec;
#[cfg(feature = "test-image")]
mod test_image;

pub(crate) use answers::*;
pub(crate) use balloon::*;
pub(crate) use field::{Addresses, Bytes, Decimal, Frames, Hex, MibPerSecond, Nanoseconds};
#[cfg(feature = "test-image")]
pub(crate) use field::{Microseconds, Milliseconds};
pub(crate) use machine::*;
pub(crate) use modes::*;
pub(crate) use spec::Event;
pub use spec::{EventSpec, FieldSpec, Kind};
#[cfg(feature = "test-image")]
pub(crate) use test_image::*;

/// The groups of events, each with its title.
pub fn groups() -> impl Iterator<Item = (&'static str, &'static [EventSpec])> {
    let kernel = [
        ("Balloons", balloon::EVENTS),
        ("Answers of the console", answers::EVENTS),
        ("The machine", machine::EVENTS),
        ("`mode=check` and `mode=bench`", modes::EVENTS),
    ];
    let tests: &[(&'static str, &'static [EventSpec])] = &[
        #[cfg(feature = "test-image")]
        ("The image with the kernel's own tests", test_image::EVENTS),
    ];
    kernel.into_iter().chain(tests.iter().copied())
}

/// The event of this name.
pub fn named(name: &str) -> Option<&'static EventSpec> {
    groups().flat_map(|(_, events)| events).find(|event| event.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Object;

    #[test]
    fn names_are_unique_and_everything_is_described() {
        let mut names = std::collections::BTreeSet::new();
        for event in groups().flat_map(|(_, events)| events) {
            assert!(names.insert(event.name), "{} is declared twice", event.name);
            assert!(!event.about.trim().is_empty(), "{}", event.name);
            let mut fields = std::collections::BTreeSet::from(["event", "ms"]);
            for field in event.fields {
                assert!(fields.insert(field.name), "{}: {} is declared twice", event.name, field.name);
                assert!(!field.about.is_empty(), "{}: {}", event.name, field.name);
            }
        }
        assert!(named("balloon").is_some() && named("ballon").is_none());
    }

    fn written(event: &dyn Event) -> serde_json::Value {
        let mut line = std::string::String::new();
        let mut object = Object::begin(&mut line, event.name(), 7);
        event.write(&mut object);
        object.end().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn an_event_is_written_as_declared() {
        let event = Reset {
            name: "virtio0",
            reason: "asked",
            inflating: Frames(2),
            deflating: Frames(0),
            actual: Bytes(4096),
            queue: None,
        };
        let mut expected = serde_json::json!({
            "event": "reset", "ms": 7, "name": "virtio0", "reason": "asked", "inflating": 2, "deflating": 0, "actual": 4096,
        });
        assert_eq!(written(&event), expected);
        expected["queue"] = "inflate".into();
        assert_eq!(written(&Reset { queue: Some("inflate"), ..event }), expected);
        let declared = named("reset").unwrap();
        let names: Vec<_> = declared.fields.iter().map(|field| (field.name, field.unit, field.optional)).collect();
        let last = [("actual", "bytes", false), ("queue", "", true)];
        assert_eq!((names.len(), &names[4..]), (6, &last[..]));
    }
}
