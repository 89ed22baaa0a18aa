//! Hostile checks against sound devices.

use super::run::{sound, test};

#[test]
fn a_sound_device_survives() {
    let report = test(sound(), "hostile", |_| {});
    assert_eq!(report.failed(), []);
}
