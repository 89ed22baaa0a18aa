//! A virtio-pci balloon: config space, BARs and the balloon behind them. Driven by register accesses and by time.

use super::behaviour::{Behaviour, Handling, Lie, Numbering, feature};
use super::bus::Bus;
use super::common_config::CommonConfig;
use super::config_space::ConfigModel;
use super::layout::Structure;
use super::msix::MsixTable;
use super::queue::{NO_VECTOR, Purpose, QueueModel, Request};
use super::ram::{GuestSide, HostSide};

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// A statistic as it arrived.
pub type Statistic = (u16, u64);

/// The device.
#[derive(Debug)]
pub struct Balloon {
    pub behaviour: Behaviour,
    pub config: ConfigModel,
    pub common: CommonConfig,
    msix: Option<MsixTable>,
    isr: u8,
    pub isr_reads: u64,
    num_pages: u32,
    actual: u32,
    accesses: u64,
    completions: u64,
    last_used: Option<u32>,
    next_spurious: u64,
    /// The statistics buffer in hand, and those read from each that came.
    statistics: Option<Request>,
    pub reports: Vec<Vec<Statistic>>,
    /// PFNs in the order in which requests brought them.
    pub largest_request: usize,
    /// Requests that could not be served as they came (too long).
    pub skipped: u64,
    pub needless_kicks: u64,
}

impl Balloon {
    /// A device with its BARs assigned from these addresses up.
    pub fn new(behaviour: Behaviour, memory: u32, ports: u32) -> Self {
        let queues = number_queues(&behaviour);
        Self {
            config: ConfigModel::new(&behaviour, memory, ports),
            common: CommonConfig::new(&behaviour, queues),
            msix: behaviour.vectors.map(MsixTable::new),
            isr: 0,
            isr_reads: 0,
            num_pages: 0,
            actual: 0,
            accesses: 0,
            completions: 0,
            last_used: None,
            next_spurious: behaviour.spurious.unwrap_or(0),
            statistics: None,
            reports: Vec::new(),
            largest_request: 0,
            skipped: 0,
            needless_kicks: 0,
            behaviour,
        }
    }

    // What the host does.

    /// The host wants a balloon of `pages`.
    pub fn set_target(&mut self, pages: u32, bus: &mut Bus) {
        self.num_pages = pages;
        self.common.generation = self.common.generation.wrapping_add(1);
        self.raise_config(bus);
    }

    pub fn target(&self) -> u32 {
        self.num_pages
    }

    /// The size that the driver reports.
    pub fn actual(&self) -> u32 {
        self.actual
    }

    /// The host asks for fresh statistics: gives the buffer back. `false` if it has none.
    pub fn request_statistics(&mut self, bus: &mut Bus) -> bool {
        let Some(request) = self.statistics.take() else { return false };
        let index = self.queue_of(Purpose::Statistics).expect("a request came from it");
        self.complete(index, &request, bus);
        true
    }

    /// Every completion from now on waits for this; `None` takes the stall away.
    pub fn stall_from_now(&mut self, stalled: bool) {
        self.behaviour.stalls_after = stalled.then_some(self.completions);
    }

    pub fn raise_needs_reset(&mut self, bus: &mut Bus) {
        self.common.need_reset();
        self.raise_config(bus);
    }

    /// Takes the device off the bus: all ones from now on.
    pub fn unplug(&mut self) {
        self.behaviour.removed_after = Some(0);
    }

    pub fn gone(&self) -> bool {
        self.behaviour.removed_after.is_some_and(|after| self.accesses >= after)
    }

    // What the driver can see.

    pub fn config_read(&mut self, offset: u16, width: u8) -> u32 {
        if self.gone() { u32::MAX >> (32 - 8 * u32::from(width)) } else { self.config.read(offset, width) }
    }

    pub fn config_write(&mut self, offset: u16, width: u8, value: u32, bus: &mut Bus) {
        if !self.gone() {
            self.config.write(offset, width, value, bus);
            self.send_pending(bus);
        }
    }

    pub fn bar_read(&mut self, bar: u8, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if self.gone() {
            return u32::MAX >> (32 - 8 * u32::from(width));
        }
        self.accesses += 1;
        match self.behaviour.layout.find(bar, offset) {
            Some((Structure::Common, at)) => self.read_common(at, width, bus),
            Some((Structure::Isr, 0)) if width == 1 => self.read_isr(bus),
            Some((Structure::Device, at)) => self.read_device_config(at, width, bus),
            Some((Structure::MsixTable, at)) if self.msix.is_some() => {
                self.msix.as_ref().map_or(0, |m| m.read_table(at, width, bus))
            }
            Some((Structure::PendingBits, at)) => self.msix.as_ref().map_or(0, |m| m.read_pending(at, width)),
            _ => {
                bus.misstep("PCI-ACC", format!("read of {width} bytes at BAR{bar} {offset:#x}"));
                u32::MAX
            }
        }
    }

    pub fn bar_write(&mut self, bar: u8, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        if self.gone() {
            return;
        }
        self.accesses += 1;
        match self.behaviour.layout.find(bar, offset) {
            Some((Structure::Common, at)) => {
                let live = self.common.live();
                self.common.write(at, width, value, &self.behaviour, bus);
                if !live && self.common.live() {
                    self.check_live(bus);
                }
            }
            Some((Structure::Notify, at)) => self.kick(at, width, value, bus),
            Some((Structure::Device, at)) => self.write_device_config(at, width, value, bus),
            Some((Structure::MsixTable, at)) if self.msix.is_some() => {
                if let Some(table) = &mut self.msix {
                    table.write_table(at, width, value, bus);
                }
                self.send_pending(bus);
            }
            _ => bus.misstep("PCI-ACC", format!("write of {width} bytes at BAR{bar} {offset:#x}")),
        }
    }

    /// A reset is done when the driver can see that it is; until then the device goes on as it was.
    fn read_common(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        let resetting = self.common.resetting();
        let value = self.common.read(offset, width, &self.behaviour, bus);
        if resetting && !self.common.resetting() {
            (self.isr, self.statistics, self.last_used) = (0, None, None);
            bus.ram.reset_host();
        }
        value
    }

    fn check_live(&mut self, bus: &mut Bus) {
        if !self.config.bus_master() {
            bus.misstep("PCI-MASTER", "DRIVER_OK with bus mastering off: the device cannot reach its rings");
        }
        if let Some(table) = &self.msix {
            let programmed = self.common.queues.iter().map(|q| q.vector).chain([self.common.config_vector]);
            let used = programmed.filter(|v| *v != NO_VECTOR).max().map_or(0, |v| usize::from(v) + 1);
            if self.config.msix_enabled() && (self.config.msix_all_masked() || table.unmasked() < used) {
                bus.misstep("PCI-MSIX", format!("DRIVER_OK with {} of {used} vectors unmasked", table.unmasked()));
            }
        }
    }

    fn read_isr(&mut self, bus: &mut Bus) -> u32 {
        self.isr_reads += 1;
        if self.config.msix_enabled() {
            bus.misstep("PCI-ISR-01", "ISR read in MSI-X mode");
        }
        std::mem::take(&mut self.isr).into()
    }

    // Device config.

    fn config_length(&self) -> u64 {
        match self.behaviour.features {
            f if f & feature::PAGE_POISON != 0 => 16,
            f if f & feature::FREE_PAGE_HINT != 0 => 12,
            _ => 8,
        }
    }

    fn read_device_config(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if width != 4 || offset >= self.config_length() {
            bus.misstep("CFG-04", format!("read of {width} bytes at {offset:#x} of device config"));
            return u32::MAX;
        }
        if offset == 0 && !std::mem::take(&mut self.common.generation_seen) {
            bus.misstep("CFG-03", "num_pages read without config_generation before it");
        }
        let value = match offset {
            0 => self.num_pages,
            4 => self.actual,
            _ => 0,
        };
        if self.behaviour.churn > 0 {
            // The configuration changes right behind the driver's back: what it has just read is old.
            self.behaviour.churn -= 1;
            self.num_pages = self.num_pages.wrapping_add(1);
            self.common.generation = self.common.generation.wrapping_add(1);
        }
        value
    }

    fn write_device_config(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        if !self.common.settled() {
            return bus.misstep("INIT-06", format!("device config written at {offset:#x} during negotiation"));
        }
        match (offset, width) {
            (4, 4) => self.actual = value,
            _ => bus.misstep("BAL-ACTUAL", format!("write of {width} bytes at {offset:#x} of device config")),
        }
    }

    // Queues.

    pub fn queue_of(&self, purpose: Purpose) -> Option<u16> {
        self.common.queues.iter().find(|q| q.purpose == purpose).map(|q| q.index)
    }

    pub fn queue(&self, index: u16) -> &QueueModel {
        &self.common.queues[usize::from(index)]
    }

    /// Requests in the device's hands and PFN requests published and not taken.
    pub fn outstanding(&self, bus: &Bus) -> usize {
        let pfn_queues = self.common.queues.iter().filter(|q| matches!(q.purpose, Purpose::Inflate | Purpose::Deflate));
        pfn_queues.map(|q| q.in_flight.len() + usize::from(q.waiting(bus))).sum()
    }

    fn kick(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        let index = (offset / 4) as u16;
        let live = self.common.live();
        let now = bus.now;
        let Some(queue) = self.common.queues.get_mut(usize::from(index)).filter(|q| q.enabled && offset % 4 == 0)
        else {
            return bus.misstep("PCI-NOTIF-03", format!("kick at {offset:#x}, where no enabled queue is notified"));
        };
        if width != 2 || value != u32::from(index) {
            bus.misstep("PCI-NOTIF-01", format!("kick of queue {index} with {value:#x} in {width} bytes"));
        }
        if !live {
            bus.misstep("INIT-14", format!("queue {index} kicked before DRIVER_OK"));
        }
        queue.kicks += 1;
        self.needless_kicks += u64::from(queue.waiting(bus) == 0 && queue.kicked.is_none());
        match self.behaviour.handling {
            Handling::AtOnce => self.handle_kick(index, bus),
            Handling::Later(delay) => {
                let queue = &mut self.common.queues[usize::from(index)];
                queue.kicked = queue.kicked.or(Some(now + delay));
            }
        }
        self.work(bus);
    }

    fn stalled(&self) -> bool {
        let over = |limit: Option<u64>| limit.is_some_and(|limit| self.completions >= limit);
        over(self.behaviour.stalls_after) || over(self.behaviour.needs_reset_after)
    }

    /// Takes what is on the available ring of a queue.
    fn handle_kick(&mut self, index: u16, bus: &mut Bus) {
        let queue = &mut self.common.queues[usize::from(index)];
        queue.kicked = None;
        if !queue.enabled || !self.config.bus_master() {
            return;
        }
        let purpose = queue.purpose;
        for mut request in queue.take_available(bus) {
            request.due = bus.now + self.behaviour.schedule.below(self.behaviour.service + 1);
            match purpose {
                Purpose::Statistics => self.take_statistics(request, bus),
                _ => self.take_pfns(index, request, bus),
            }
        }
    }

    fn take_statistics(&mut self, request: Request, bus: &mut Bus) {
        if self.statistics.is_some() {
            bus.misstep("BAL-STATS-01", "a second statistics buffer");
        }
        if request.bytes.is_empty() || request.bytes.len() % 10 != 0 {
            bus.misstep("BAL-STATS-05", format!("statistics of {} bytes", request.bytes.len()));
        }
        let report: Vec<Statistic> = request
            .bytes
            .chunks_exact(10)
            .map(|c| (u16::from_le_bytes([c[0], c[1]]), u64::from_le_bytes(c[2..].try_into().expect("8 bytes"))))
            .collect();
        let tags = |report: &[Statistic]| report.iter().map(|(tag, _)| *tag).collect::<Vec<_>>();
        if self.reports.last().is_some_and(|last| tags(last) != tags(&report)) {
            bus.misstep("BAL-STATS-08", format!("tags changed to {:?}", tags(&report)));
        }
        self.reports.push(report);
        self.statistics = Some(request);
    }

    /// Takes an inflate or deflate request: checks it and marks its frames.
    fn take_pfns(&mut self, index: u16, request: Request, bus: &mut Bus) {
        let longest = request.chain.iter().map(|(_, d)| d.length).max().unwrap_or(0);
        if longest > self.behaviour.longest_descriptor || request.chain.len() > 1 && self.behaviour.loses_long {
            self.skipped += 1;
            bus.misstep("BAL-LONG", format!("{} descriptors, the longest of {longest} bytes", request.chain.len()));
            if self.behaviour.loses_long {
                return;
            }
        }
        if request.bytes.is_empty() || request.bytes.len() % 4 != 0 {
            bus.misstep("BAL-PFNS", format!("PFN array of {} bytes", request.bytes.len()));
        }
        let inflating = self.queue(index).purpose == Purpose::Inflate;
        let list = pfns(&request);
        self.largest_request = self.largest_request.max(list.len());
        for pfn in list {
            if inflating { take_inflated(pfn, bus) } else { take_deflated(pfn, bus) }
        }
        self.common.queues[usize::from(index)].in_flight.push(request);
    }

    /// Returns a request to the driver, or lies about it.
    fn complete(&mut self, index: u16, request: &Request, bus: &mut Bus) {
        self.queue(index).check_unchanged(request, bus);
        let purpose = self.queue(index).purpose;
        let after = match purpose {
            Purpose::Inflate => Some(HostSide::Ballooned),
            Purpose::Deflate => Some(HostSide::Guest),
            _ => None,
        };
        if let Some(side) = after {
            for pfn in pfns(request) {
                bus.ram.set_host_side(pfn, side);
            }
        }
        self.completions += 1;
        let lie = self.behaviour.lie.filter(|(after, _)| self.completions > *after).map(|(_, lie)| lie);
        let last = self.last_used.replace(u32::from(request.head));
        let queue = &mut self.common.queues[usize::from(index)];
        let wanted = match lie {
            Some(lie) => {
                tell(queue, lie, request.head, last, bus);
                self.behaviour.lie = None;
                true
            }
            None => queue.put_used(request.head, 0, bus),
        };
        if wanted {
            self.raise_queue(index, bus);
        }
        if self.behaviour.needs_reset_after == Some(self.completions) {
            self.raise_needs_reset(bus);
        }
    }

    // Time.

    /// Does everything that is due.
    pub fn work(&mut self, bus: &mut Bus) {
        if self.gone() {
            return;
        }
        if let Some(period) = self.behaviour.spurious
            && bus.now >= self.next_spurious
        {
            self.next_spurious = bus.now + period;
            self.raise_spurious(bus);
        }
        for index in 0..self.common.queues.len() as u16 {
            if self.queue(index).kicked.is_some_and(|due| due <= bus.now) {
                self.handle_kick(index, bus);
            }
            while let Some(request) = self.next_finished(index, bus.now) {
                self.complete(index, &request, bus);
            }
        }
    }

    /// The request to complete next: of those due, the schedule picks one.
    fn next_finished(&mut self, index: u16, now: u64) -> Option<Request> {
        if self.stalled() {
            return None;
        }
        let in_flight = &mut self.common.queues[usize::from(index)].in_flight;
        let due: Vec<usize> = (0..in_flight.len()).filter(|i| in_flight[*i].due <= now).collect();
        let pick = self.behaviour.schedule.below(due.len() as u64) as usize;
        due.get(pick).map(|at| in_flight.remove(*at))
    }

    /// When the device does something by itself next.
    pub fn next_due(&self) -> Option<u64> {
        if self.gone() {
            return None;
        }
        let stalled = self.stalled();
        let kicks = self.common.queues.iter().filter_map(|q| q.kicked);
        let requests = self.common.queues.iter().flat_map(|q| q.in_flight.iter().map(|r| r.due)).filter(|_| !stalled);
        kicks.chain(requests).min()
    }

    // Interrupts.

    fn raise_spurious(&mut self, bus: &mut Bus) {
        if self.common.live() {
            self.isr |= ISR_QUEUE;
            let vectors = self.msix.as_ref().map_or(0, MsixTable::len) as u16;
            (0..vectors).for_each(|vector| self.raise_vector(vector, bus));
        }
    }

    fn raise_config(&mut self, bus: &mut Bus) {
        if self.common.live() && !self.gone() {
            self.isr |= ISR_CONFIG;
            self.raise_vector(self.common.config_vector, bus);
        }
    }

    fn raise_queue(&mut self, index: u16, bus: &mut Bus) {
        if !self.config.msix_enabled() {
            self.isr |= ISR_QUEUE;
        }
        self.raise_vector(self.queue(index).vector, bus);
    }

    fn raise_vector(&mut self, vector: u16, bus: &mut Bus) {
        if !self.config.msix_enabled() || vector == NO_VECTOR {
            return;
        }
        let all_masked = self.config.msix_all_masked();
        let Some(message) = self.msix.as_mut().and_then(|table| table.raise(vector, all_masked)) else { return };
        let delay = self.behaviour.schedule.below(self.behaviour.interrupt_delay + 1);
        bus.send(message, delay);
    }

    fn send_pending(&mut self, bus: &mut Bus) {
        if self.config.msix_enabled() {
            let all_masked = self.config.msix_all_masked();
            for message in self.msix.iter_mut().flat_map(|table| table.release_pending(all_masked)) {
                bus.send(message, 0);
            }
        }
    }

    /// Whether the function pulls its interrupt line.
    pub fn pulls_line(&self) -> bool {
        self.isr != 0
            && self.behaviour.pin
            && !self.gone()
            && !self.config.msix_enabled()
            && !self.config.intx_disabled()
    }

    /// Whether memory is part of a ring or request that the device may still use.
    pub fn uses(&self, start: u64, size: u64) -> bool {
        let statistics = self.statistics.iter().flat_map(|r| &r.chain);
        !self.gone() && self.common.queues.iter().any(|q| q.uses(start, size))
            || statistics.into_iter().any(|(_, d)| start <= d.address && d.address < start + size)
    }
}

/// The queues that a device with these features has.
fn number_queues(behaviour: &Behaviour) -> Vec<QueueModel> {
    let offered = |bit: u64| behaviour.features & bit != 0;
    let size = behaviour.queue_size;
    let optional = [
        (Purpose::Statistics, size, offered(feature::STATS_VQ)),
        (Purpose::Hint, size, offered(feature::FREE_PAGE_HINT)),
        (Purpose::Reporting, 32, offered(feature::PAGE_REPORTING)),
    ];
    let mut purposes = vec![(Purpose::Inflate, size), (Purpose::Deflate, size)];
    for (purpose, size, present) in optional {
        match (present, behaviour.numbering) {
            (true, _) => purposes.push((purpose, size)),
            (false, Numbering::Fixed) => purposes.push((Purpose::Missing, 1)),
            (false, Numbering::Dense) => {}
        }
    }
    purposes.into_iter().enumerate().map(|(i, (purpose, size))| QueueModel::new(i as u16, purpose, size)).collect()
}

fn pfns(request: &Request) -> Vec<u32> {
    request.bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

fn take_inflated(pfn: u32, bus: &mut Bus) {
    if !bus.ram.contains(pfn) {
        return bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which is no RAM"));
    }
    if bus.ram.host_side(pfn) != HostSide::Guest {
        bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    if bus.ram.guest_side(pfn) != GuestSide::Driver {
        bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which the driver was not given"));
    }
    bus.ram.set_host_side(pfn, HostSide::Inflating);
    bus.ram.discard(pfn);
}

fn take_deflated(pfn: u32, bus: &mut Bus) {
    if bus.ram.host_side(pfn) != HostSide::Ballooned {
        return bus.misstep("BAL-OP-10", format!("deflate of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    if !bus.ram.untouched(pfn) {
        bus.misstep("BAL-OP-09", format!("{pfn:#x} was written while the host had it"));
    }
    bus.ram.set_host_side(pfn, HostSide::Deflating);
}

/// Writes a lie into the used ring.
fn tell(queue: &mut QueueModel, lie: Lie, head: u16, last: Option<u32>, bus: &Bus) {
    let size = queue.size();
    let free = (0..size)
        .rev()
        .find(|slot| *slot != head && !queue.in_flight.iter().any(|r| r.chain.iter().any(|(used, _)| used == slot)));
    let head = u32::from(head);
    match lie {
        Lie::IdOutOfRange => queue.forge_used(u32::from(size), 0, 1, bus),
        Lie::IdNotInFlight => queue.forge_used(free.map_or(head + 0x1_0000, u32::from), 0, 1, bus),
        Lie::IdRepeated => queue.forge_used(last.unwrap_or(head), 0, 1, bus),
        Lie::LengthTooLong => queue.forge_used(head, u32::MAX, 1, bus),
        Lie::IndexJumps => queue.forge_used(head, 0, size + 1, bus),
        Lie::IndexGoesBack => queue.forge_used(head, 0, u16::MAX, bus),
    }
}
