//! The console's `random`: bytes from the first entropy device on PCI, which is started for them and stopped again.

use core::fmt;

use crate::console::count;
use crate::machine::{Machine, log as serial};
use ballonet::pci::{Function, Node, Tree};
use ballonet::platform::Platform;
use ballonet::rng::{Rng, RngError};
use ballonet::virtio::{BringUpError, DeviceOptions, InterruptMode, TransportError};
use derive_more::{Display, Error, From};

/// Bytes that are asked for where nobody says how many.
pub(super) const DEFAULT: usize = 16;
/// The most bytes of an answer.
const MOST: usize = 64;
/// How long the device may take; the balloon waits meanwhile. 50 ms.
const PATIENCE: u64 = 50_000_000;

/// Why there are no bytes.
#[derive(Debug, Display, Error, From)]
enum RandomError {
    #[display("there is no virtio entropy device on PCI (in QEMU: `-device virtio-rng-pci`)")]
    NoDevice,
    #[display("the entropy device does not start: {_0}")]
    BringUp(BringUpError),
    #[display("the entropy device: {_0}")]
    Answer(RngError),
    #[display("the entropy device has not answered in {} ms", PATIENCE / 1_000_000)]
    Silent,
    #[display("the entropy device does not stop: {_0}")]
    Stop(TransportError),
}

/// Bytes as the console shows them.
struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Tells random bytes, as many as were asked for or as the device gives.
pub(super) fn tell(machine: &mut Machine, tree: &Tree, length: &str) {
    let Some(length) = length.parse().ok().filter(|length| (1..=MOST).contains(length)) else {
        return serial::line(format_args!("`{length}` is no number of bytes from 1 to {MOST}"));
    };
    tell_some(machine, tree, length);
}

/// The same for a number of bytes that is one.
pub(super) fn tell_some(machine: &mut Machine, tree: &Tree, length: usize) {
    let mut bytes = [0; MOST];
    match ask(machine, tree, &mut bytes[..length]) {
        Err(error) => serial::line(format_args!("{error}")),
        Ok(given) => {
            let bytes = Hex(&bytes[..given]);
            serial::emit("random", |line| {
                line.number("count", given as u64).display("bytes", &bytes);
            });
            if serial::is_text() {
                serial::line(format_args!("{bytes}"));
            }
            if given < length {
                serial::line(format_args!("the device gave no more than {}", count(given, "byte")));
            }
        }
    }
}

/// Fills `bytes` from its start, and returns how many came.
fn ask(machine: &mut Machine, tree: &Tree, bytes: &mut [u8]) -> Result<usize, RandomError> {
    let is_entropy = |function: &&Function| Rng::<Machine>::matches(function.vendor(), function.device());
    let function = tree.nodes().iter().map(Node::function).find(is_entropy).ok_or(RandomError::NoDevice)?;
    tree.open_path(machine.config(), function.bdf());
    let mut options = DeviceOptions::new("entropy");
    // The only request is waited for.
    options.interrupts = Some(InterruptMode::Polling);
    let mut rng = Rng::probe(machine, function.bdf(), options)?;
    let answer = wait(machine, &mut rng, bytes);
    let stopped = rng.shutdown(machine);
    let given = answer?;
    stopped?;
    Ok(given)
}

fn wait(machine: &Machine, rng: &mut Rng<Machine>, bytes: &mut [u8]) -> Result<usize, RandomError> {
    rng.request(bytes.len());
    let end = machine.now().saturating_add(PATIENCE);
    loop {
        if let Some(given) = rng.poll(bytes)? {
            return Ok(given);
        }
        if machine.now() >= end {
            return Err(RandomError::Silent);
        }
        machine.relax();
    }
}
