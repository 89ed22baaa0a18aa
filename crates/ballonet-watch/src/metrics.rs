//! Serves the newest samples to Prometheus: text format 0.0.4 over HTTP.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Context as _, Outcome};
use crate::model::{Figure, History, State, Unit};

/// The longest time that a client may take to send a request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request accepted, in bytes.
const LONGEST: usize = 8192;

/// An endpoint that serves the last published samples.
pub(crate) struct Endpoint {
    page: Arc<Mutex<String>>,
    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    /// Listens at `address`, until the program ends.
    pub(crate) fn listen(address: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind(address).of(format_args!("--listen {address}"))?;
        let address = listener.local_addr()?;
        let page = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&page);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let text = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A client that closed the connection misses its answer.
                let _ = answer(client, &text);
            }
        });
        Ok(Self { page, address })
    }

    /// Publishes these samples.
    pub(crate) fn publish(&self, guests: &[History]) {
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = page(guests);
    }
}

fn answer(mut client: TcpStream, page: &str) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    let request = request(&mut client)?;
    let target = request.split(|byte| *byte == b' ').nth(1);
    let (status, body) = match target.and_then(|target| target.split(|byte| *byte == b'?').next()) {
        Some(b"/metrics" | b"/") => ("200 OK", page),
        _ => ("404 Not Found", "the metrics are at /metrics\n"),
    };
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The request's head; what came of it if the client is slow.
fn request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        // 0 would mean no limit.
        client.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match client.read(&mut bytes)? {
            0 => break,
            count => request.extend_from_slice(&bytes[..count]),
        }
    }
    Ok(request)
}

/// The page: each figure of each guest that has it.
fn page(guests: &[History]) -> String {
    let mut text = String::new();
    let up = |guest: &History| Some(u64::from(matches!(guest.state, State::Runs(_))));
    family(&mut text, "up", "gauge", "Whether QEMU answers.", guests, up);
    for figure in Figure::ALL {
        let (suffix, kind) = match figure.unit() {
            Unit::Bytes => ("_bytes", "gauge"),
            Unit::Rate => ("_bytes_per_second", "gauge"),
            Unit::TotalBytes => ("_bytes_total", "counter"),
            Unit::Total => ("_total", "counter"),
            Unit::Time => ("_seconds", "gauge"),
        };
        let name = format!("{}{suffix}", figure.word());
        family(&mut text, &name, kind, figure.help(), guests, |guest| guest.figure(*figure));
    }
    text
}

fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    guests: &[History],
    value: impl Fn(&History) -> Option<u64>,
) {
    let values: Vec<_> = guests.iter().filter_map(|guest| Some((&guest.name, value(guest)?))).collect();
    if values.is_empty() {
        return;
    }
    let _ = writeln!(text, "# HELP ballonet_watch_{name} {help}\n# TYPE ballonet_watch_{name} {kind}");
    for (guest, value) in values {
        let _ = writeln!(text, "ballonet_watch_{name}{{guest=\"{}\"}} {value}", label(guest));
    }
}

/// A label's value.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sample;

    fn guests() -> [History; 2] {
        let mut guests = [History::new("a"), History::new("b\"c\\")];
        let mut sample = Sample::new(1.0);
        sample.set(Figure::Rss, Some(4096));
        sample.set(Figure::Kicks, Some(7));
        guests[0].push(sample.clone());
        guests[0].state = State::Runs("running".into());
        guests[1].push(sample);
        guests
    }

    #[test]
    fn figures_are_named_by_their_units() {
        let page = page(&guests());
        for line in [
            "# TYPE ballonet_watch_rss_bytes gauge",
            "ballonet_watch_rss_bytes{guest=\"a\"} 4096",
            "ballonet_watch_rss_bytes{guest=\"b\\\"c\\\\\"} 4096",
            "# TYPE ballonet_watch_kicks_total counter",
            "ballonet_watch_up{guest=\"a\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("pss"), "unknown figures are left out");
    }

    #[test]
    fn it_is_served_and_other_paths_are_not() {
        let endpoint = Endpoint::listen(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.publish(&guests());
        let get = |path: &str| {
            let mut client = TcpStream::connect(endpoint.address).unwrap();
            write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        };
        let text = get("/metrics");
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("rss_bytes{guest=\"a\"} 4096"), "{text}");
        assert!(get("/metrics?guest=a").starts_with("HTTP/1.1 200"));
        assert!(get("/other").starts_with("HTTP/1.1 404"));
        let taken = Endpoint::listen(endpoint.address).map(drop).unwrap_err().to_string();
        assert!(taken.contains(&endpoint.address.to_string()), "{taken}");
    }
}
