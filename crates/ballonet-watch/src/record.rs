//! Records of samples and events: CSV, or one JSON object per line. Plots read both.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::failure::{Context as _, Outcome};
use crate::model::{Figure, Mark, Sample};

/// One guest's record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Track {
    /// The guest's name.
    pub(crate) name: String,
    /// Its samples, the oldest first.
    pub(crate) samples: Vec<Sample>,
    /// Its events, the oldest first.
    pub(crate) marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "json" | "ndjson") => Self::JsonLines,
            _ => Self::Csv,
        }
    }
}

/// A record being written. Each line reaches the file at once, so that a reader can follow it.
pub(crate) struct Recorder {
    out: Box<dyn Write + Send>,
    format: Format,
    name: String,
}

impl Recorder {
    /// Begins a record; `-` is standard output.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let out: Box<dyn Write + Send> = match path.to_str() {
            Some("-") => Box::new(io::stdout()),
            _ => Box::new(BufWriter::new(File::create(path).of(format_args!("--record {name}"))?)),
        };
        let mut recorder = Self { out, format: Format::of(path), name };
        if recorder.format == Format::Csv {
            let words: Vec<_> = Figure::ALL.iter().map(|figure| figure.word()).collect();
            recorder.line(&format!("time,guest,{},event,text", words.join(",")))?;
        }
        Ok(recorder)
    }

    /// Adds a sample of a guest.
    pub(crate) fn sample(&mut self, guest: &str, sample: &Sample) -> Outcome {
        let line = match self.format {
            Format::Csv => csv_sample(guest, sample),
            Format::JsonLines => json_sample(guest, sample).to_string(),
        };
        self.line(&line)
    }

    /// Adds an event of a guest.
    pub(crate) fn mark(&mut self, guest: &str, mark: &Mark) -> Outcome {
        let line = match self.format {
            Format::Csv => {
                let empty = ",".repeat(Figure::ALL.len());
                format!("{:.3},{}{empty},{},{}", mark.at, quoted(guest), quoted(&mark.kind), quoted(&mark.text))
            }
            Format::JsonLines => {
                json!({ "time": mark.at, "guest": guest, "event": mark.kind, "text": mark.text }).to_string()
            }
        };
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> Outcome {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).of(&self.name)
    }
}

fn csv_sample(guest: &str, sample: &Sample) -> String {
    let value = |figure: &Figure| sample.get(*figure).map_or_else(String::new, |value| value.to_string());
    let values: Vec<_> = Figure::ALL.iter().map(value).collect();
    format!("{:.3},{},{},,", sample.at, quoted(guest), values.join(","))
}

fn json_sample(guest: &str, sample: &Sample) -> Value {
    let mut object = Map::new();
    object.insert("time".into(), json!((sample.at * 1000.0).round() / 1000.0));
    object.insert("guest".into(), json!(guest));
    for figure in Figure::ALL {
        if let Some(value) = sample.get(*figure) {
            object.insert(figure.word().into(), json!(value));
        }
    }
    Value::Object(object)
}

/// A CSV field (RFC 4180).
fn quoted(text: &str) -> String {
    let plain = text.replace(['\r', '\n'], " ");
    if plain.contains([',', '"']) { format!("\"{}\"", plain.replace('"', "\"\"")) } else { plain }
}

/// Reads a record. Errors name the file and the line.
pub(crate) fn read(path: &Path) -> Outcome<Vec<Track>> {
    let text = fs::read_to_string(path).of(path.display())?;
    let tracks = match Format::of(path) {
        Format::Csv => read_csv(&text),
        Format::JsonLines => read_json(&text),
    }
    .map_err(|error| format!("{}: {error}", path.display()))?;
    if tracks.iter().all(|track| track.samples.is_empty()) {
        return Err(format!("{}: no samples in this record", path.display()).into());
    }
    Ok(tracks)
}

fn track<'a>(tracks: &'a mut Vec<Track>, name: &str) -> &'a mut Track {
    let place = tracks.iter().position(|track| track.name == name).unwrap_or_else(|| {
        tracks.push(Track { name: name.into(), samples: Vec::new(), marks: Vec::new() });
        tracks.len() - 1
    });
    &mut tracks[place]
}

fn read_csv(text: &str) -> Result<Vec<Track>, String> {
    let mut lines = text.lines().enumerate();
    let header: Vec<String> = lines.next().map_or_else(Vec::new, |(_, line)| fields(line));
    let column = |name: &str| header.iter().position(|word| word == name);
    let (Some(time), Some(guest)) = (column("time"), column("guest")) else {
        return Err("not a record: its first line has no columns `time` and `guest`".into());
    };
    let (event, words) = (column("event"), column("text"));
    let figures: Vec<_> = Figure::ALL.iter().filter_map(|figure| Some((*figure, column(figure.word())?))).collect();
    let mut tracks = Vec::new();
    for (number, line) in lines {
        let row = fields(line);
        let cell = |place: usize| row.get(place).map_or("", String::as_str);
        let at: f64 = cell(time).parse().map_err(|_| format!("line {}: `{}` is not a time", number + 1, cell(time)))?;
        let track = track(&mut tracks, cell(guest));
        if let Some(kind) = event.map(cell).filter(|kind| !kind.is_empty()) {
            track.marks.push(Mark::new(at, kind, words.map_or("", cell)));
            continue;
        }
        let mut sample = Sample::new(at);
        for (figure, place) in &figures {
            let text = cell(*place);
            let value =
                if text.is_empty() { None } else { Some(text.parse().map_err(|_| invalid(number, *figure, text))?) };
            sample.set(*figure, value);
        }
        track.samples.push(sample);
    }
    Ok(tracks)
}

fn invalid(line: usize, figure: Figure, text: &str) -> String {
    format!("line {}: `{text}` is not a value of {}", line + 1, figure.word())
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut inside) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if inside && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => inside = !inside,
            ',' if !inside => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

fn read_json(text: &str) -> Result<Vec<Track>, String> {
    let mut tracks = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let invalid = || format!("line {}: not a sample or event: {line}", number + 1);
        let value: Value = serde_json::from_str(line).map_err(|_| invalid())?;
        let (Some(at), Some(guest)) = (value["time"].as_f64(), value["guest"].as_str()) else { return Err(invalid()) };
        let track = track(&mut tracks, guest);
        if let Some(kind) = value["event"].as_str() {
            track.marks.push(Mark::new(at, kind, value["text"].as_str().unwrap_or_default()));
            continue;
        }
        let mut sample = Sample::new(at);
        for figure in Figure::ALL {
            sample.set(*figure, value[figure.word()].as_u64());
        }
        track.samples.push(sample);
    }
    Ok(tracks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(name: &str, tracks: &[Track]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("ballonet-watch-{}-{name}", std::process::id()));
        let mut recorder = Recorder::create(&path).unwrap();
        for track in tracks {
            for sample in &track.samples {
                recorder.sample(&track.name, sample).unwrap();
            }
            for mark in &track.marks {
                recorder.mark(&track.name, mark).unwrap();
            }
        }
        path
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_record_reads_back_as_written(
            name in "[a-z,\"]{1,6}",
            samples in proptest::collection::vec((0_u32..100_000, proptest::option::of(any::<u64>())), 1..5),
            text in "[ -~]{0,12}",
        ) {
            let sample = |(ms, value): (u32, Option<u64>)| {
                let mut sample = Sample::new(f64::from(ms) / 1000.0);
                sample.set(Figure::Rss, value);
                sample.set(Figure::DeflateRate, value);
                sample
            };
            let marks = vec![Mark::new(1.5, "target", text)];
            let tracks = [Track { name, samples: samples.into_iter().map(sample).collect(), marks }];
            for file in ["round.csv", "round.jsonl"] {
                let path = written(file, &tracks);
                let back = read(&path).unwrap();
                fs::remove_file(path).unwrap();
                prop_assert_eq!(&back[..], &tracks[..]);
            }
        }
    }

    #[test]
    fn an_invalid_record_is_an_error_with_its_line() {
        for (text, words) in [
            ("", "no columns `time`"),
            ("a,b\n1,2\n", "no columns `time`"),
            ("time,guest,rss\nsoon,a,1\n", "line 2: `soon` is not a time"),
            ("time,guest,rss\n1,a,-5\n", "line 2: `-5` is not a value of rss"),
        ] {
            assert!(read_csv(text).is_err_and(|error| error.contains(words)), "{text}");
        }
        assert!(read_json("{}\n").is_err_and(|error| error.contains("line 1")));
        let error = read(Path::new("/nowhere.csv")).unwrap_err().to_string();
        assert!(error.contains("/nowhere.csv"), "{error}");
    }

    #[test]
    fn columns_of_another_version_are_ignored() {
        let tracks = read_csv("guest,time,colour,rss\na,1.5,red,7\n").unwrap();
        assert_eq!(tracks[0].samples[0].get(Figure::Rss), Some(7));
    }
}
