//! What the balloon does next: a state machine without I/O.
//!
//! It knows the target, the size that the host has confirmed, and what is on its way. Frames move in one direction at a
//! time: when the target turns around, what is in flight comes back before the other direction starts, so no frame is
//! asked back before the host has confirmed that it has it.

/// What to do next. Counts are in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the target is reached, or cannot be for now.
    Rest,
    /// Nothing before what is in flight has come back.
    Wait,
    /// Give at most this many more frames to the host.
    Inflate(u64),
    /// Ask at most this many frames back.
    Deflate(u64),
}

/// The state. All counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    target: u64,
    actual: u64,
    inflating: u64,
    deflating: u64,
    /// The platform had no frame left to give, or none to ask back.
    short: bool,
    /// That was said for this target.
    announced: bool,
    /// The target is the guest's own, whatever the host wants.
    pinned: bool,
    /// The most that it may hold while the guest lacks memory, whatever the host wants.
    limit: Option<u64>,
}

impl Plan {
    /// A balloon that holds `actual` frames, and is to keep them.
    pub const fn new(actual: u32) -> Self {
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
    pub const fn target(&self) -> u64 {
        self.target
    }

    /// The size that the host has confirmed: frames count until they are confirmed to be back, and from when they are
    /// confirmed to be given.
    pub const fn actual(&self) -> u64 {
        self.actual
    }

    /// Frames on their way to the host.
    pub const fn inflating(&self) -> u64 {
        self.inflating
    }

    /// Frames on their way back.
    pub const fn deflating(&self) -> u64 {
        self.deflating
    }

    /// What the size will be once all that is in flight has arrived.
    pub const fn expected(&self) -> u64 {
        (self.actual + self.inflating).saturating_sub(self.deflating)
    }

    /// Whether the balloon stops short of the target because the platform has no more frames for it.
    pub const fn is_short(&self) -> bool {
        self.short
    }

    /// Whether the target is reached and nothing is in flight.
    pub const fn is_settled(&self) -> bool {
        self.target == self.actual && self.inflating == 0 && self.deflating == 0
    }

    /// The host names a target, in mid-course or not. Returns whether it is a new one.
    pub fn set_target(&mut self, target: u32) -> bool {
        let target = u64::from(target);
        if target == self.target || self.pinned {
            return false;
        }
        *self = Self { target, short: false, announced: false, ..*self };
        true
    }

    /// The guest itself names a target, and those of the host count no more: 0 when the device is about to go, so that all
    /// frames come back.
    pub fn pin(&mut self, target: u32) {
        self.pinned = false;
        self.set_target(target);
        self.pinned = true;
    }

    /// The guest lacks memory: the balloon holds `frames` at most, or less if that was said before, until [`Plan::lift`],
    /// whatever the host wants.
    pub const fn limit(&mut self, frames: u64) {
        self.limit = match self.limit {
            Some(limit) if limit < frames => Some(limit),
            _ => Some(frames),
        };
        self.short = false;
    }

    /// The guest lacks no memory any more. Returns whether the balloon may grow by that.
    pub fn lift(&mut self) -> bool {
        self.limit.take().is_some_and(|limit| limit < self.target)
    }

    /// The size to make for: the target, or less while the guest lacks memory.
    const fn goal(&self) -> u64 {
        match self.limit {
            Some(limit) if limit < self.target => limit,
            _ => self.target,
        }
    }

    /// What to do next.
    pub const fn next(&self) -> Action {
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
    pub const fn inflate_sent(&mut self, frames: u32) {
        self.inflating += frames as u64;
    }

    /// The host has confirmed `frames` that were sent to it.
    pub const fn inflated(&mut self, frames: u32) {
        self.inflating -= frames as u64;
        self.actual += frames as u64;
    }

    /// `frames` were asked back.
    pub const fn deflate_sent(&mut self, frames: u32) {
        self.deflating += frames as u64;
    }

    /// The host has confirmed `frames` that were asked back.
    pub const fn deflated(&mut self, frames: u32) {
        self.deflating -= frames as u64;
        self.actual = self.actual.saturating_sub(frames as u64);
    }

    /// The device was reset. What was in flight has gone back to where it came from, where it may be taken again.
    pub const fn stopped(&mut self) {
        self.inflating = 0;
        self.deflating = 0;
        self.short = false;
    }

    /// The device would not stop. Frames in flight no longer belong to either side; returns how many.
    pub const fn lost(&mut self) -> u64 {
        let lost = self.inflating + self.deflating;
        // Frames that were asked back count as the host's until they come, which these never will.
        self.actual = self.actual.saturating_sub(self.deflating);
        self.stopped();
        lost
    }

    /// Frames that were lost on their way back are in the balloon again.
    pub const fn regained(&mut self, frames: u64) {
        self.actual += frames;
    }

    /// The device is gone, and its host has nothing any more.
    pub const fn emptied(&mut self) {
        self.actual = 0;
    }

    /// The platform has no more frames for the direction that [`Plan::next`] named. Returns whether that is news: the
    /// first time for this target.
    pub const fn ran_short(&mut self) -> bool {
        self.short = true;
        let news = !self.announced;
        self.announced = true;
        news
    }

    /// Memory has become free. Returns whether that gives the balloon something to do.
    pub const fn memory_freed(&mut self) -> bool {
        let resumes = self.short && self.target > self.actual;
        if resumes {
            self.short = false;
        }
        resumes
    }
}

#[cfg(test)]
mod tests;
