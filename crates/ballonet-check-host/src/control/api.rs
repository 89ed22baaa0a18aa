//! Cloud Hypervisor's HTTP interface on a Unix socket: a connection for each request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::connect;
use crate::failure::Outcome;

/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// The socket.
pub(super) struct Api(PathBuf, Duration);

impl Api {
    /// The socket at this path, which may take some time to appear.
    pub(super) const fn new(socket: PathBuf, patience: Duration) -> Self {
        Self(socket, patience)
    }

    /// Makes a request. An error names it, with its body and the answer.
    pub(super) fn put(&self, endpoint: &str, body: Option<&Value>) -> Outcome {
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.exchange(endpoint, &body).map_err(|error| format!("PUT {endpoint} {body}: {error}").into())
    }

    fn exchange(&self, endpoint: &str, body: &str) -> Outcome {
        let mut stream = connect(&self.0, self.1)?;
        write!(
            stream,
            "PUT /api/v1/{endpoint} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = BufReader::new(stream.take(ANSWER_MAX));
        let mut head = String::new();
        answer.read_line(&mut head)?;
        let mut words = head.split_whitespace();
        let (Some(protocol), Some(status)) = (words.next(), words.next()) else {
            return Err(format!("no answer, but {head:?}").into());
        };
        if !protocol.starts_with("HTTP/1.") {
            return Err(format!("this is no HTTP: {head:?}").into());
        }
        if status.starts_with('2') {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap_or(0);
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut text = Vec::new();
        answer.take(length).read_to_end(&mut text)?;
        Err(format!("{} {}", head.trim_end(), String::from_utf8_lossy(&text)).into())
    }
}
