//! The way to the host's target: a state machine without I/O.
//!
//! It knows the target, the size that the host has confirmed, and the frames in flight. Frames move in one direction at
//! a time: when the target turns around, all requests in flight complete before the other direction starts. So no frame
//! is deflated before the host has confirmed inflating it.

/// The next step. Counts are in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: the target is reached, or out of reach for now.
    Rest,
    /// Nothing until the requests in flight are complete.
    Wait,
    /// Give at most this many more frames to the host.
    Inflate(u64),
    /// Ask the host for at most this many frames.
    Deflate(u64),
}

/// The target, the size, and what is in flight. All counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TargetPlan {
    target: u64,
    actual: u64,
    inflating: u64,
    deflating: u64,
    /// The platform had no frame left to give, or none to ask for.
    short: bool,
    /// The shortage was reported for this target.
    announced: bool,
    /// The target is the guest's own, whatever the host wants.
    pinned: bool,
    /// The largest size while the guest is short of memory, whatever the host wants.
    limit: Option<u64>,
}

impl TargetPlan {
    /// A balloon that holds `actual` frames and keeps them.
    pub(crate) const fn new(actual: u32) -> Self {
        let actual = actual as u64;
        Self {
            target: actual,
            actual,
            inflating: 0,
            deflating: 0,
            short: false,
            announced: false,
            pinned: false,
            limit: None,
        }
    }

    /// The size that the host wants.
    pub(crate) const fn target(&self) -> u64 {
        self.target
    }

    /// The size that the host has confirmed.
    pub(crate) const fn actual(&self) -> u64 {
        self.actual
    }

    /// Frames on their way to the host.
    pub(crate) const fn inflating(&self) -> u64 {
        self.inflating
    }

    /// Frames on their way back.
    pub(crate) const fn deflating(&self) -> u64 {
        self.deflating
    }

    /// The size once all requests in flight are complete.
    pub(crate) const fn expected(&self) -> u64 {
        (self.actual + self.inflating).saturating_sub(self.deflating)
    }

    /// Whether the balloon stops short of the target because the platform has no more frames for it.
    pub(crate) const fn is_short(&self) -> bool {
        self.short
    }

    /// Whether the target is reached and nothing is in flight.
    pub(crate) const fn is_settled(&self) -> bool {
        self.target == self.actual && self.inflating == 0 && self.deflating == 0
    }

    /// Whether requests are in flight, or can be sent.
    pub(crate) const fn moves(&self) -> bool {
        self.inflating + self.deflating > 0 || matches!(self.next(), Action::Inflate(_) | Action::Deflate(_))
    }

    /// The host has set a target. Returns whether it is a new one.
    pub(crate) fn set_target(&mut self, target: u32) -> bool {
        let target = u64::from(target);
        if target == self.target || self.pinned {
            return false;
        }
        *self = Self { target, short: false, announced: false, ..*self };
        true
    }

    /// The guest sets its own target, and the host's are ignored from now on: 0 before the device is removed.
    pub(crate) fn pin(&mut self, target: u32) {
        self.pinned = false;
        self.set_target(target);
        self.pinned = true;
    }

    /// The guest is short of memory: the balloon holds at most `frames`, or an earlier lower limit, until
    /// [`TargetPlan::lift`].
    pub(crate) const fn limit(&mut self, frames: u64) {
        self.limit = match self.limit {
            Some(limit) if limit < frames => Some(limit),
            _ => Some(frames),
        };
        self.short = false;
    }

    /// Ends the limit. Returns whether the balloon may grow now.
    pub(crate) fn lift(&mut self) -> bool {
        self.limit.take().is_some_and(|limit| limit < self.target)
    }

    /// The size to reach: the target, or less while the guest is short of memory.
    const fn goal(&self) -> u64 {
        match self.limit {
            Some(limit) if limit < self.target => limit,
            _ => self.target,
        }
    }

    /// The next step.
    pub(crate) const fn next(&self) -> Action {
        let expected = self.expected();
        let idle = if self.inflating + self.deflating > 0 { Action::Wait } else { Action::Rest };
        let goal = self.goal();
        if goal > expected && self.deflating == 0 && !self.short {
            Action::Inflate(goal - expected)
        } else if goal < expected && self.inflating == 0 && !self.short {
            Action::Deflate(expected - goal)
        } else {
            idle
        }
    }

    /// `frames` were sent to the host.
    pub(crate) const fn inflate_sent(&mut self, frames: u32) {
        self.inflating += frames as u64;
    }

    /// The host has confirmed `frames` that were sent to it.
    pub(crate) const fn inflated(&mut self, frames: u32) {
        self.inflating -= frames as u64;
        self.actual += frames as u64;
    }

    /// The host was asked for `frames`.
    pub(crate) const fn deflate_sent(&mut self, frames: u32) {
        self.deflating += frames as u64;
    }

    /// The host has returned `frames`.
    pub(crate) const fn deflated(&mut self, frames: u32) {
        self.deflating -= frames as u64;
        self.actual = self.actual.saturating_sub(frames as u64);
    }

    /// The device was reset. The frames in flight went back to where they came from, and may be sent again.
    pub(crate) const fn stopped(&mut self) {
        self.inflating = 0;
        self.deflating = 0;
        self.short = false;
    }

    /// The device did not stop. Frames in flight belong to neither side; returns their number.
    pub(crate) const fn lost(&mut self) -> u64 {
        let lost = self.inflating + self.deflating;
        // Frames on their way back count as the host's until they arrive, which these never do.
        self.actual = self.actual.saturating_sub(self.deflating);
        self.stopped();
        lost
    }

    /// `frames` lost on their way back are in the balloon again.
    pub(crate) const fn regained(&mut self, frames: u64) {
        self.actual += frames;
    }

    /// The device is gone, and the balloon counts as empty.
    pub(crate) const fn emptied(&mut self) {
        self.actual = 0;
    }

    /// The platform has no more frames for the direction of [`TargetPlan::next`]. Returns whether this is the first
    /// time for this target.
    pub(crate) const fn ran_short(&mut self) -> bool {
        self.short = true;
        let news = !self.announced;
        self.announced = true;
        news
    }

    /// Memory has become free. Returns whether the balloon can continue.
    pub(crate) const fn memory_freed(&mut self) -> bool {
        let resumes = self.short && self.target > self.actual;
        if resumes {
            self.short = false;
        }
        resumes
    }
}

#[cfg(test)]
mod tests;
