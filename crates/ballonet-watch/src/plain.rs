//! The picture as lines, for pipes, logs and simple terminals.

use crate::model::{Figure, History, Mark, Sample, State};
use crate::units::mib;

/// A sample as a line.
pub(crate) fn sample_line(guest: &History, sample: &Sample) -> String {
    let size = |figure: Figure| sample.get(figure).map_or_else(|| "-".into(), |bytes| mib(bytes).to_string());
    let state = match &guest.state {
        State::Unknown => "connecting".to_owned(),
        State::Runs(state) => state.clone(),
        State::Silent => "QEMU does not answer".to_owned(),
        State::Ended(why) => format!("ended: {why}"),
    };
    format!(
        "{:.1} s {}: RSS {} MiB, PSS {} MiB, RAM {} MiB; balloon leaves {} of {} MiB, target {}; free {}, available {}; {state}",
        sample.at,
        guest.name,
        size(Figure::Rss),
        size(Figure::Pss),
        size(Figure::Ram),
        size(Figure::Actual),
        size(Figure::Size),
        size(Figure::Target),
        size(Figure::StatFree),
        size(Figure::StatAvailable),
    )
}

/// An event as a line.
pub(crate) fn mark_line(guest: &History, mark: &Mark) -> String {
    format!("{:.1} s {}: {}: {}", mark.at, guest.name, mark.kind, mark.text)
}
