//! The picture as lines, for pipes, logs and simple terminals.

use std::io::{self, Write as _};

use crate::cli::Outputs;
use crate::model::{Figure, History, Mark, Sample, State};
use crate::units::mib;

/// Prints a line. Fails if the reader has closed the pipe.
pub(crate) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// The same, on standard error if standard output has the record.
pub(crate) fn say_beside(line: &str, outputs: &Outputs) -> io::Result<()> {
    if outputs.records_to_output() { writeln!(io::stderr(), "{line}") } else { say(line) }
}

/// A ballonet kernel's figures, in a line only if they are known.
const KERNEL: [(&str, Figure); 4] =
    [("used", Figure::Used), ("free", Figure::Free), ("reported", Figure::Reported), ("hinted", Figure::Hinted)];

/// A sample as a line.
pub(crate) fn sample_line(guest: &History, sample: &Sample) -> String {
    let size = |figure: Figure| sample.get(figure).map_or_else(|| "-".into(), |bytes| mib(bytes).to_string());
    let known = |(word, figure): (&str, Figure)| Some(format!(" {word} {},", mib(sample.get(figure)?)));
    let kernel: String = KERNEL.into_iter().filter_map(known).collect();
    let kernel = kernel.trim_end_matches(',');
    let state = match &guest.state {
        State::Unknown => "connecting".to_owned(),
        State::Runs(state) => state.clone(),
        State::Silent => "QEMU does not answer".to_owned(),
        State::Ended(why) => format!("ended: {why}"),
    };
    format!(
        "{:.1} s {}: RSS {} MiB, PSS {} MiB, RAM {} MiB; balloon leaves {} of {} MiB, target {}, inflating {}, deflating {} \
         MiB/s; free {}, available {}, total {};{kernel}{} {state}",
        sample.at,
        guest.name,
        size(Figure::Rss),
        size(Figure::Pss),
        size(Figure::Ram),
        size(Figure::Actual),
        size(Figure::Size),
        size(Figure::Target),
        size(Figure::InflateRate),
        size(Figure::DeflateRate),
        size(Figure::StatFree),
        size(Figure::StatAvailable),
        size(Figure::StatTotal),
        if kernel.is_empty() { "" } else { ";" },
    )
}

/// An event as a line.
pub(crate) fn mark_line(guest: &History, mark: &Mark) -> String {
    format!("{:.1} s {}: {}: {}", mark.at, guest.name, mark.kind, mark.text)
}
