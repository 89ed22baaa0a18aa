//! Interrupts from the device, counted by vector.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Isr, PciFunction};
use crate::platform::{Action, AnyPlatform, Mapped};
use ballonet::pci::{MsixTable, MsixVector};
use ballonet::platform::{Handled, InterruptLine, Vector};
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::ISR_CONFIG;

/// The vectors that are counted separately: configuration, then the queues.
pub(crate) const COUNTED: usize = 8;

/// Interrupts that came.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By vector. On the line, index 0 counts configuration changes, index 1 all others.
    vectors: [AtomicU32; COUNTED],
    /// All bits that the ISR byte had when it was read by the line's handler.
    isr: AtomicU32,
}

impl Counts {
    /// Interrupts on a vector.
    pub(crate) fn of(&self, vector: usize) -> u32 {
        self.vectors.get(vector).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// All interrupts.
    pub(crate) fn all(&self) -> u32 {
        (0..COUNTED).map(|vector| self.of(vector)).sum()
    }

    /// Interrupts that do not report a configuration change.
    pub(crate) fn queues(&self) -> u32 {
        (1..COUNTED).map(|vector| self.of(vector)).sum()
    }

    /// The ISR bits that were seen.
    pub(crate) fn isr(&self) -> u8 {
        self.isr.load(Ordering::Acquire) as u8
    }

    fn count(&self, vector: usize) {
        if let Some(count) = self.vectors.get(vector) {
            count.fetch_add(1, Ordering::Release);
        }
    }
}

/// The platform's side of a device's interrupts. Ends by [`Signals::release`].
pub(crate) struct Signals {
    pub(crate) mode: InterruptMode,
    pub(crate) counts: Arc<Counts>,
    vectors: Vec<Vector>,
    table: Option<MsixTable<Mapped>>,
}

impl Signals {
    /// None at all.
    pub(crate) fn none() -> Self {
        Self { mode: InterruptMode::Polling, counts: Arc::default(), vectors: Vec::new(), table: None }
    }

    /// Sets up `vectors` entries of the MSI-X table, or the line, or nothing.
    pub(crate) fn set_up(
        platform: &mut dyn AnyPlatform,
        pci: Option<&PciFunction>,
        line: Option<InterruptLine>,
        isr: &Arc<Isr>,
        (mode, vectors): (InterruptMode, usize),
    ) -> Result<Self, String> {
        let mut signals = Self { mode, ..Self::none() };
        let outcome = match mode {
            InterruptMode::PerQueue | InterruptMode::Shared => signals.messages(platform, pci, vectors),
            InterruptMode::Line => signals.line(platform, line, isr),
            InterruptMode::Polling => Ok(()),
        };
        if let Some(pci) = pci {
            match mode {
                InterruptMode::Line if outcome.is_ok() => {
                    pci.function.set_intx(&mut platform.config(), true);
                }
                InterruptMode::Polling => {
                    pci.function.set_intx(&mut platform.config(), false);
                }
                _ => {}
            }
        }
        match outcome {
            Ok(()) => Ok(signals),
            Err(reason) => {
                signals.release(platform, pci);
                Err(reason)
            }
        }
    }

    fn messages(
        &mut self,
        platform: &mut dyn AnyPlatform,
        pci: Option<&PciFunction>,
        count: usize,
    ) -> Result<(), String> {
        let msix = pci.and_then(|pci| pci.msix).ok_or("the device has no usable MSI-X")?;
        if usize::from(msix.entries) < count {
            return Err(format!("the device has {} MSI-X vectors, {count} are needed", msix.entries));
        }
        let table = platform.map(msix.table).map_err(|error| format!("{error}"))?;
        let pending = match platform.map(msix.pending) {
            Ok(pending) => pending,
            Err(error) => {
                platform.unmap(table);
                return Err(format!("{error}"));
            }
        };
        let table = match msix.enable(&mut platform.config(), table, pending) {
            Ok(table) => self.table.insert(table),
            Err((error, windows)) => {
                windows.into_iter().for_each(|window| platform.unmap(window));
                return Err(format!("{error}"));
            }
        };
        for place in 0..count.min(COUNTED) {
            let counts = Arc::clone(&self.counts);
            let action: Action = Box::new(move || {
                counts.count(place);
                Handled::Yes
            });
            let vector = platform.allocate_vector(format_args!("check-{place}"), action);
            let vector = vector.map_err(|error| format!("{error}"))?;
            let message = vector.message;
            self.vectors.push(vector);
            let message = message.ok_or("the platform gave a vector without a message")?;
            let entry = MsixVector::new(place as u16).ok_or("no such vector")?;
            table.program(entry, message).map_err(|error| format!("{error}"))?;
            table.unmask(entry).map_err(|error| format!("{error}"))?;
        }
        table.set_function_mask(&mut platform.config(), false);
        Ok(())
    }

    fn line(
        &mut self,
        platform: &mut dyn AnyPlatform,
        line: Option<InterruptLine>,
        isr: &Arc<Isr>,
    ) -> Result<(), String> {
        let line = line.ok_or("the device has no interrupt line")?;
        let (counts, isr) = (Arc::clone(&self.counts), Arc::clone(isr));
        let action: Action = Box::new(move || {
            let bits = isr.take();
            if bits == 0 || bits == u8::MAX {
                return Handled::No;
            }
            counts.isr.fetch_or(bits.into(), Ordering::AcqRel);
            counts.count(usize::from(bits & ISR_CONFIG == 0));
            Handled::Yes
        });
        let vector = platform.attach_line(line, "check-line", action);
        self.vectors.push(vector.map_err(|error| format!("{error}"))?);
        Ok(())
    }

    /// Gives everything back. The device has been reset.
    pub(crate) fn release(self, platform: &mut dyn AnyPlatform, pci: Option<&PciFunction>) {
        if let (InterruptMode::Line, false, Some(pci)) = (self.mode, self.vectors.is_empty(), pci) {
            pci.function.set_intx(&mut platform.config(), false);
        }
        if let Some(table) = self.table {
            let (table, pending) = table.disable(&mut platform.config());
            platform.unmap(table);
            platform.unmap(pending);
        }
        for vector in self.vectors {
            if self.mode == InterruptMode::Line {
                platform.detach_line(vector);
            } else {
                platform.release_vector(vector);
            }
        }
    }
}
