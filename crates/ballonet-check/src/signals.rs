//! What the device signals: interrupts, counted by what they stand for.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::site::Site;
use ballonet::pci::{MsixTable, MsixVector};
use ballonet::platform::{Handled, Handler, InterruptLine, Platform, Registers, Vector};
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::ISR_CONFIG;

/// The vectors that are counted one by one: configuration, then the queues.
pub(super) const COUNTED: usize = 8;

/// Interrupts that came.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By vector. On the line those that tell of the configuration at place 0, and all others at place 1.
    vectors: [AtomicU32; COUNTED],
    /// All bits that the ISR byte had when it was read by the line's handler.
    isr: AtomicU32,
}

impl Counts {
    /// How many came on a vector.
    pub(super) fn of(&self, vector: usize) -> u32 {
        self.vectors.get(vector).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// How many came in all.
    pub(super) fn all(&self) -> u32 {
        (0..COUNTED).map(|vector| self.of(vector)).sum()
    }

    /// How many came that do not report a configuration change.
    pub(super) fn queues(&self) -> u32 {
        (1..COUNTED).map(|vector| self.of(vector)).sum()
    }

    /// The ISR bits that were seen.
    pub(super) fn isr(&self) -> u8 {
        self.isr.load(Ordering::Acquire) as u8
    }

    fn count(&self, vector: usize) {
        if let Some(count) = self.vectors.get(vector) {
            count.fetch_add(1, Ordering::Release);
        }
    }
}

/// A device's way to signal, set up on the platform's side. Ends by [`Signals::release`].
pub(super) struct Signals<R> {
    pub(super) mode: InterruptMode,
    pub(super) counts: Arc<Counts>,
    vectors: Vec<Vector>,
    table: Option<MsixTable<R>>,
}

impl<R: Registers + Send + Sync + 'static> Signals<R> {
    /// None at all.
    pub(super) fn none() -> Self {
        Self { mode: InterruptMode::Polling, counts: Arc::default(), vectors: Vec::new(), table: None }
    }

    /// Sets up `vectors` entries of the MSI-X table, or the line, or nothing.
    pub(super) fn set_up<P>(
        site: &mut Site<'_, P>,
        isr: &Arc<R>,
        mode: InterruptMode,
        vectors: usize,
    ) -> Result<Self, String>
    where
        P: Platform<Registers = R>,
    {
        let mut signals = Self { mode, ..Self::none() };
        let outcome = match mode {
            InterruptMode::PerQueue | InterruptMode::Shared => signals.messages(site, vectors),
            InterruptMode::Line => signals.line(site, isr),
            InterruptMode::Polling => Ok(()),
        };
        if mode == InterruptMode::Polling {
            site.function.set_intx(site.platform.config(), false);
        }
        match outcome {
            Ok(()) => Ok(signals),
            Err(reason) => {
                signals.release(site);
                Err(reason)
            }
        }
    }

    fn messages<P: Platform<Registers = R>>(&mut self, site: &mut Site<'_, P>, count: usize) -> Result<(), String> {
        let msix = site.msix.ok_or("the device has no usable MSI-X")?;
        if usize::from(msix.entries()) < count {
            return Err(format!("the device has {} MSI-X vectors, {count} are needed", msix.entries()));
        }
        let table = site.platform.map(msix.table()).map_err(|error| format!("{error}"))?;
        let pending = match site.platform.map(msix.pending()) {
            Ok(pending) => pending,
            Err(error) => {
                site.platform.unmap(table);
                return Err(format!("{error}"));
            }
        };
        let table = self.table.insert(msix.enable(site.platform.config(), table, pending));
        for place in 0..count.min(COUNTED) {
            let counts = Arc::clone(&self.counts);
            let handler: Handler = Box::new(move || {
                counts.count(place);
                Handled::Yes
            });
            let vector = site.platform.allocate_vector(format!("check-{place}"), handler);
            let vector = vector.map_err(|error| format!("{error}"))?;
            let message = vector.message;
            self.vectors.push(vector);
            let message = message.ok_or("the platform gave a vector without a message")?;
            let entry = MsixVector::new(place as u16).ok_or("no such vector")?;
            table.program(entry, message).map_err(|error| format!("{error}"))?;
            table.unmask(entry).map_err(|error| format!("{error}"))?;
        }
        table.set_function_mask(site.platform.config(), false);
        Ok(())
    }

    fn line<P: Platform<Registers = R>>(&mut self, site: &mut Site<'_, P>, isr: &Arc<R>) -> Result<(), String> {
        let function = site.function.bdf();
        let pin = site.function.interrupt_pin().ok_or("the function has no interrupt pin")?;
        let (counts, isr) = (Arc::clone(&self.counts), Arc::clone(isr));
        let handler: Handler = Box::new(move || {
            let bits = isr.read8(0);
            if bits == 0 || bits == u8::MAX {
                return Handled::No;
            }
            counts.isr.fetch_or(bits.into(), Ordering::AcqRel);
            counts.count(usize::from(bits & ISR_CONFIG == 0));
            Handled::Yes
        });
        let vector =
            site.platform.attach_line(InterruptLine::Pin { function, pin }, String::from("check-line"), handler);
        self.vectors.push(vector.map_err(|error| format!("{error}"))?);
        site.function.set_intx(site.platform.config(), true);
        Ok(())
    }

    /// Gives everything back. The device has been reset.
    pub(super) fn release<P: Platform<Registers = R>>(self, site: &mut Site<'_, P>) {
        if self.mode == InterruptMode::Line && !self.vectors.is_empty() {
            site.function.set_intx(site.platform.config(), false);
        }
        if let Some(table) = self.table {
            let (table, pending) = table.disable(site.platform.config());
            site.platform.unmap(table);
            site.platform.unmap(pending);
        }
        for vector in self.vectors {
            site.platform.release_vector(vector);
        }
    }
}
