//! `random`: bytes from the first entropy device on PCI, otherwise on MMIO. The device is started for the command and
//! stopped again.

use core::fmt;

use crate::console::count;
use crate::console::events;
use crate::kernel::console::command::{Answer, Context, say};
use crate::kernel::mmio_devices::MmioFound;
use crate::machine::{Machine, log as serial};
use ballonet::pci::{Function, Tree};
use ballonet::platform::Platform;
use ballonet::rng::{Rng, RngError};
use ballonet::virtio::spec::DeviceType;
use ballonet::virtio::{BringUpError, DeviceHandle, DeviceOptions, InterruptMode, TransportError};
use derive_more::{Display, Error, From};

/// Default number of bytes.
const DEFAULT: usize = 16;
/// The most bytes per answer.
const MOST: usize = 64;
/// The longest wait for the device, during which the balloon waits too: 50 ms.
const PATIENCE: u64 = 50_000_000;

/// Why there are no bytes.
#[derive(Debug, Display, Error, From)]
enum RandomError {
    #[display("there is no virtio entropy device (in QEMU: `-device virtio-rng-pci`)")]
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

/// Bytes in hexadecimal.
struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// `random`.
pub(in super::super) fn random(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let wanted = match *arguments {
        [] => DEFAULT,
        [length] => {
            let Some(length) = length.parse().ok().filter(|length| (1..=MOST).contains(length)) else {
                say!("invalid number of bytes `{length}`; valid: 1 to {MOST}");
                return Some(Answer::Done);
            };
            length
        }
        _ => return None,
    };
    let mut bytes = [0; MOST];
    match ask(context.machine, context.tree, context.mmio, &mut bytes[..wanted]) {
        Err(error) => say!("{error}"),
        Ok(given) => show(&bytes[..given], wanted),
    }
    Some(Answer::Done)
}

fn show(bytes: &[u8], wanted: usize) {
    serial::emit(&events::Random { count: bytes.len() as u64, bytes: &Hex(bytes) });
    if serial::is_text() {
        say!("{}", Hex(bytes));
    }
    if bytes.len() < wanted {
        say!("the device gave only {}", count(bytes.len(), "byte"));
    }
}

/// Fills the start of `bytes`; returns how many bytes came.
fn ask(machine: &mut Machine, tree: &Tree, mmio: &[MmioFound], bytes: &mut [u8]) -> Result<usize, RandomError> {
    let is_entropy = |function: &&Function| DeviceType::ENTROPY.is_function(function.vendor, function.device);
    let on_pci = tree.nodes().iter().map(|node| &node.function).find(is_entropy).map(|function| function.bdf);
    let on_mmio = || mmio.iter().find(|found| found.is(DeviceType::ENTROPY)).map(MmioFound::handle);
    if let Some(function) = on_pci {
        tree.open_path(machine.config(), function);
    }
    let device = on_pci.map(DeviceHandle::from).or_else(on_mmio).ok_or(RandomError::NoDevice)?;
    let mut options = DeviceOptions::new("entropy");
    // The command waits for its only request.
    options.interrupts = Some(InterruptMode::Polling);
    let mut rng = Rng::probe(machine, device, options)?;
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
