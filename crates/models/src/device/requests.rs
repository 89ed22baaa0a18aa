//! The balloon's queues at work: kicks, the requests they bring, and when and how each is completed.

use crate::behaviour::{Behaviour, Entropy, Handling, Numbering, write};
use crate::bug::Bug;
use crate::device::common::config_data;
use crate::device::hints::finish_hinted;
use crate::device::pages::{finish_reported, lent, pfns, take_deflated, take_inflated, take_reported};
use crate::device::{Balloon, Statistic};
use crate::feature;
use crate::queue::{INDIRECT, Purpose, QueueModel, Request};
use crate::world::Bus;
use crate::world::HostSide;

impl Balloon {
    pub(crate) fn kick(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        let stride = u64::from(self.behaviour.notify_stride);
        let multiplier = u64::from(self.behaviour.layout.notify_multiplier()) * stride;
        let named = if self.common.accepted() & feature::NOTIF_CONFIG_DATA == 0 {
            value as u16
        } else {
            (value as u16).wrapping_sub(config_data(0)) / 3
        };
        let index = offset.checked_div(multiplier).unwrap_or(named.into()) as u16;
        if offset == u64::from(index) * multiplier {
            self.kick_queue(index, width, value, bus);
        } else {
            bus.misstep("PCI-NOTIF-03", format!("kick at {offset:#x}, which is no queue's doorbell"));
        }
    }

    /// A kick that arrived at the doorbell of a queue.
    pub(crate) fn kick_queue(&mut self, index: u16, width: u8, value: u32, bus: &mut Bus) {
        let (live, accepted) = (self.common.live(), self.common.accepted());
        let now = bus.now;
        let Some(queue) = self.common.queues.get_mut(usize::from(index)).filter(|q| q.enabled) else {
            return bus.misstep("PCI-NOTIF-03", format!("kick of queue {index}, which is not enabled"));
        };
        let (wide, named) = (accepted & feature::NOTIFICATION_DATA != 0, accepted & feature::NOTIF_CONFIG_DATA != 0);
        let name = if named { config_data(index) } else { index };
        let progress = if wide { queue.published(bus) } else { 0 };
        let wrong = match (wide, named) {
            (false, _) if width != 2 => Some("PCI-NOTIF-01"),
            (true, _) if width != 4 => Some("PCI-NOTIF-02"),
            (false, false) if value as u16 != name => Some("PCI-NOTIF-03"),
            (true, false) if value as u16 != name => Some("PCI-NOTIF-04"),
            (false, true) if value as u16 != name => Some("PCI-NOTIF-05"),
            (true, true) if value as u16 != name => Some("PCI-NOTIF-06"),
            _ if value >> 16 != u32::from(progress) => Some("PACKED-DESC-03"),
            _ => None,
        };
        if let Some(clause) = wrong {
            let right = format!("{name:#x}, progress {progress:#x}");
            bus.misstep(clause, format!("kick of queue {index} with {value:#x} in {width} bytes, not {right}"));
        }
        if !live {
            bus.misstep("INIT-14", format!("queue {index} kicked before DRIVER_OK"));
            if !self.behaviour.has(Bug::ServesEarlyKicks) {
                return;
            }
        }
        queue.kicks += 1;
        let needless = queue.waiting(bus) == 0 && queue.kicked.is_none();
        self.needless_kicks += u64::from(needless);
        if needless && self.behaviour.has(Bug::NeedsResetForNothing) {
            self.raise_needs_reset(bus);
        }
        match self.behaviour.handling {
            Handling::AtOnce => self.handle_kick(index, bus),
            Handling::Later(delay) => {
                let queue = &mut self.common.queues[usize::from(index)];
                queue.kicked = queue.kicked.or(Some(now + delay));
            }
        }
        self.work(bus);
    }

    pub(crate) fn stalled(&self) -> bool {
        let over = |limit: Option<u64>| limit.is_some_and(|limit| self.completions >= limit);
        over(self.behaviour.stalls_after) || self.common.needs_reset() || self.harmed.is_some()
    }

    /// Takes all available requests of a queue.
    fn handle_kick(&mut self, index: u16, bus: &mut Bus) {
        let masters = self.masters_bus();
        let queue = &mut self.common.queues[usize::from(index)];
        queue.kicked = None;
        let purpose = queue.purpose;
        let quirks = self.behaviour.quirks;
        let ignored = quirks.ignores_inflate && matches!(purpose, Purpose::Inflate | Purpose::Deflate)
            || quirks.ignores_reports && purpose == Purpose::Reporting;
        if !queue.enabled || !masters || ignored {
            return;
        }
        let taken = queue.take_available(bus);
        self.largest_batch = self.largest_batch.max(taken.len());
        self.misbehave_when_asked(index, bus);
        for mut request in taken {
            if self.loses(index, &request) {
                continue;
            }
            request.due = bus.now + self.behaviour.schedule.below(self.behaviour.service + 1);
            match purpose {
                Purpose::Statistics if self.behaviour.has(Bug::StatisticsComeBack) => {
                    self.common.queues[usize::from(index)].in_flight.push(request);
                }
                Purpose::Statistics => self.take_statistics(request, bus),
                Purpose::Reporting => self.take_report(index, request, bus),
                Purpose::Hint => {
                    self.hints.take(&request, self.behaviour.handling == Handling::AtOnce, bus);
                    self.common.queues[usize::from(index)].in_flight.push(request);
                }
                Purpose::Entropy => {
                    Entropy::check(&request, bus);
                    self.common.queues[usize::from(index)].in_flight.push(request);
                }
                Purpose::Held => self.held.push((index, request)),
                Purpose::Spare | Purpose::Served | Purpose::Control => {
                    self.common.queues[usize::from(index)].in_flight.push(request);
                }
                _ => self.take_pfns(index, request, bus),
            }
        }
    }

    fn take_statistics(&mut self, request: Request, bus: &mut Bus) {
        if self.statistics.is_some() {
            bus.misstep("BAL-STATS-01", "a second statistics buffer");
        }
        // An entry has 10 bytes, but the specification requires a multiple of 6.
        if request.bytes.is_empty() || !request.bytes.len().is_multiple_of(30) {
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

    /// Takes a report of free memory: checks it and discards its frames.
    fn take_report(&mut self, index: u16, request: Request, bus: &mut Bus) {
        let (frames, right) = lent(&request);
        if !right || frames.is_empty() {
            bus.misstep("BAL-REPORT-05", format!("a report of {:?}", request.chain));
        }
        self.reported += frames.len() as u64;
        let cost = self.behaviour.costs.map_or(0, |costs| costs.of_report(&frames));
        frames.into_iter().for_each(|pfn| take_reported(pfn, bus));
        self.accept(index, request, cost, bus);
    }

    /// Accepts a request, which takes time: before the kick's store returns, or after all earlier requests.
    fn accept(&mut self, index: u16, mut request: Request, cost: u64, bus: &mut Bus) {
        if self.behaviour.costs.is_some() {
            if self.behaviour.handling == Handling::AtOnce {
                bus.now += cost;
                self.busy = bus.now;
            }
            self.busy = self.busy.max(bus.now) + if self.behaviour.handling == Handling::AtOnce { 0 } else { cost };
            request.due = self.busy;
        }
        self.common.queues[usize::from(index)].in_flight.push(request);
    }

    /// Takes an inflate or deflate request: checks it and marks its frames.
    fn take_pfns(&mut self, index: u16, request: Request, bus: &mut Bus) {
        let quirks = self.behaviour.quirks;
        let whole = quirks.serves(&request);
        if whole != Some(true) && quirks.forgives_chains {
            self.skipped += 1;
            pfns(&request).into_iter().for_each(|pfn| bus.ram.set_host_side(pfn, HostSide::Unread));
        } else if whole != Some(true) {
            self.skipped += 1;
            bus.misstep("BAL-LONG", format!("a chain that is not served: {:?}", request.chain));
        }
        if whole.is_none() {
            return;
        }
        if request.bytes.is_empty() || !request.bytes.len().is_multiple_of(4) {
            bus.misstep("BAL-PFNS", format!("PFN array of {} bytes", request.bytes.len()));
        }
        self.tables += u64::from(request.chain[0].1.flags & INDIRECT != 0);
        let inflating = self.queue(index).purpose == Purpose::Inflate;
        let list = quirks.pfns(&request);
        self.largest_request = self.largest_request.max(list.len());
        self.discards += if inflating { quirks.discards(&list) } else { 0 };
        let cost = self.behaviour.costs.map_or(0, |costs| costs.of_request(&list, inflating, bus));
        for pfn in &list {
            match inflating {
                true => take_inflated(*pfn, quirks.takes_away(*pfn, &list), bus),
                false => take_deflated(*pfn, bus),
            }
        }
        self.accept(index, request, cost, bus);
    }

    /// Returns requests to the driver by a single used entry, or lies about them.
    pub(crate) fn complete(&mut self, index: u16, requests: &[Request], bus: &mut Bus) {
        let Some(request) = requests.last() else { return };
        let mut written = self.behaviour.claims;
        let purpose = self.queue(index).purpose;
        for request in requests {
            self.finish(index, request, bus);
            written = self.serve(index, request, written, bus);
            if self.behaviour.quirks.claims_frames && matches!(purpose, Purpose::Inflate | Purpose::Deflate) {
                written = self.behaviour.quirks.pfns(request).len() as u32;
            }
        }
        let lie = self.behaviour.lie.filter(|(after, _)| self.completions > *after).map(|(_, lie)| lie);
        let last = self.last_used.replace(u32::from(request.head));
        let queue = &mut self.common.queues[usize::from(index)];
        let wanted = match lie {
            Some(lie) => {
                queue.lie(lie, request, last, bus);
                self.behaviour.lie = None;
                true
            }
            None => put_used(queue, requests, written, &self.behaviour, bus),
        };
        self.misbehave_at_completion(index, request, bus);
        if wanted {
            self.raise_queue(index, bus);
        }
        self.stumble(bus);
    }

    /// Serves a request as a device other than a balloon. Returns the number of bytes that it claims to have written.
    fn serve(&mut self, index: u16, request: &Request, claims: u32, bus: &Bus) -> u32 {
        let (bug, purpose) = (self.behaviour.bug, self.queue(index).purpose);
        match (&mut self.behaviour.entropy, &mut self.behaviour.other) {
            (Some(entropy), _) => entropy.give(request, bug, bus),
            (None, Some(other)) if matches!(purpose, Purpose::Served | Purpose::Control) => {
                other.serve(purpose, request, bug, bus)
            }
            _ => claims,
        }
    }

    /// Fills buffers that the device holds, as far as it has something for them.
    fn deliver(&mut self, bus: &mut Bus) {
        let bug = self.behaviour.bug;
        for place in (0..self.held.len()).rev() {
            let index = self.held[place].0;
            let first = self.held.iter().position(|(other, _)| *other == index).unwrap_or(place);
            let Some(message) = self.behaviour.other.as_mut().and_then(|other| other.next_message(index, bug)) else {
                continue;
            };
            let (_, request) = self.held.remove(first);
            let written = write(&request, &message, bus);
            let queue = &mut self.common.queues[usize::from(index)];
            if put_used(queue, &[request], written, &self.behaviour, bus) {
                self.raise_queue(index, bus);
            }
        }
    }

    /// Applies the effects of a request.
    fn finish(&mut self, index: u16, request: &Request, bus: &mut Bus) {
        self.queue(index).check_unchanged(request, bus);
        let purpose = self.queue(index).purpose;
        let after = match purpose {
            Purpose::Inflate => Some(HostSide::Ballooned),
            Purpose::Deflate => Some(HostSide::Guest),
            _ => None,
        };
        if purpose == Purpose::Reporting {
            lent(request).0.into_iter().for_each(|pfn| finish_reported(pfn, bus));
        }
        if purpose == Purpose::Hint {
            finish_hinted(request, bus);
        }
        if let Some(side) = after {
            let pfns = self.behaviour.quirks.pfns(request);
            if self.behaviour.quirks.counts_actual {
                let count = pfns.len() as u32;
                let changed = if purpose == Purpose::Inflate { u32::wrapping_add } else { u32::wrapping_sub };
                self.actual = changed(self.actual, count);
            }
            for pfn in pfns {
                bus.ram.set_host_side(pfn, side);
                if purpose == Purpose::Deflate {
                    bus.ram.note_returned(pfn);
                }
            }
        }
        self.completions += 1;
    }

    /// Raises `DEVICE_NEEDS_RESET` if it is time for it.
    pub(crate) fn stumble(&mut self, bus: &mut Bus) {
        let done = self.completions - self.completions_before;
        let due = self.behaviour.needs_reset_after.is_some_and(|after| done >= after) && !self.common.needs_reset();
        if due && self.behaviour.needs_resets > 0 {
            self.behaviour.needs_resets -= 1;
            self.raise_needs_reset(bus);
        }
    }

    // Time.

    /// Does everything that is due.
    pub fn work(&mut self, bus: &mut Bus) {
        self.suffer(bus);
        if self.gone() || self.spins() {
            return;
        }
        self.move_target(bus);
        if let Some(period) = self.behaviour.spurious
            && bus.now >= self.next_spurious
        {
            self.next_spurious = bus.now + period;
            self.raise_spurious(bus);
        }
        for index in 0..self.common.queues.len() as u16 {
            if self.behaviour.has(Bug::UsesBeforeDriverOk) && self.queue(index).waiting(bus) > 0 {
                self.handle_kick(index, bus);
            }
            if self.queue(index).kicked.is_some_and(|due| due <= bus.now) {
                self.handle_kick(index, bus);
            }
            loop {
                let finished = self.next_finished(index, bus.now);
                if finished.is_empty() {
                    break;
                }
                self.complete(index, &finished, bus);
            }
        }
        if self.common.live() {
            self.deliver(bus);
        }
    }

    /// The requests to complete next, by one entry. Of those due, the schedule picks one; where they are used in order,
    /// it is the first, or as many as are due after it.
    fn next_finished(&mut self, index: u16, now: u64) -> Vec<Request> {
        if self.stalled() {
            return Vec::new();
        }
        let in_order = self.common.accepted() & feature::IN_ORDER != 0 && !self.behaviour.has(Bug::OutOfOrder);
        let in_flight = &mut self.common.queues[usize::from(index)].in_flight;
        if in_order {
            let due = in_flight.iter().take_while(|request| request.due <= now).count();
            return in_flight.drain(..if self.behaviour.batches { due } else { due.min(1) }).collect();
        }
        let due: Vec<usize> = (0..in_flight.len()).filter(|i| in_flight[*i].due <= now).collect();
        let pick = self.behaviour.schedule.below(due.len() as u64) as usize;
        let pick = if self.behaviour.has(Bug::OutOfOrder) && due.len() > 1 { 1 } else { pick };
        due.get(pick).map(|at| in_flight.remove(*at)).into_iter().collect()
    }

    /// When the device acts next, in nanoseconds.
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.gone() {
            return None;
        }
        let stalled = self.stalled();
        let kicks = self.common.queues.iter().filter_map(|q| q.kicked);
        // With `IN_ORDER`, later requests wait for the first.
        let most = if self.common.accepted() & feature::IN_ORDER != 0 { 1 } else { usize::MAX };
        let in_flight = self.common.queues.iter().flat_map(|q| q.in_flight.iter().take(most));
        let requests = in_flight.map(|r| r.due).filter(|_| !stalled);
        kicks.chain(requests).min()
    }
}

/// Returns requests by one used entry of length `claims`. `true` if the driver wants an interrupt for it.
fn put_used(queue: &mut QueueModel, requests: &[Request], claims: u32, behaviour: &Behaviour, bus: &mut Bus) -> bool {
    let mut requests = requests.to_vec();
    if let Some(last) = requests.last_mut()
        && behaviour.has(Bug::UsedIdIsOff)
    {
        last.head = (last.head + 1) % queue.size();
    }
    let first = queue.completed == 0;
    let wanted = queue.put_used(&requests, claims, bus);
    if behaviour.has(Bug::UsesTwice) {
        queue.put_used(&requests, claims, bus);
    }
    match behaviour.bug {
        Some(Bug::IgnoresSuppression) => true,
        _ if behaviour.quirks.ignores_suppression => true,
        Some(Bug::EventIndexIsMissed) => wanted && (first || !queue.event_idx()),
        _ => wanted,
    }
}

/// The queues that a device with these features has.
pub(crate) fn number_queues(behaviour: &Behaviour) -> Vec<QueueModel> {
    if let Some(other) = &behaviour.other {
        let of = |(index, purpose): (u16, &Purpose)| QueueModel::new(index, *purpose, behaviour.queue_size);
        return (0..).zip(other.queues()).map(of).collect();
    }
    if behaviour.entropy.is_some() {
        return vec![QueueModel::new(0, Purpose::Entropy, behaviour.queue_size)];
    }
    let offered = |bit: u64| behaviour.features & bit != 0;
    let size = behaviour.queue_size;
    let optional = [
        (Purpose::Statistics, size, offered(feature::STATS_VQ)),
        (Purpose::Hint, behaviour.quirks.hint_size, offered(feature::FREE_PAGE_HINT)),
        (Purpose::Reporting, behaviour.quirks.reporting_size, offered(feature::PAGE_REPORTING)),
    ];
    let mut purposes = vec![(Purpose::Inflate, size), (Purpose::Deflate, size)];
    for (purpose, size, present) in optional {
        match (present, behaviour.numbering) {
            (true, _) => purposes.push((purpose, size)),
            (false, Numbering::Fixed) => purposes.push((Purpose::Missing, 1)),
            (false, Numbering::Dense | Numbering::Negotiated) => {}
        }
    }
    purposes.extend((0..behaviour.quirks.own_queues).map(|_| (Purpose::Own, size)));
    purposes.into_iter().enumerate().map(|(i, (purpose, size))| QueueModel::new(i as u16, purpose, size)).collect()
}
