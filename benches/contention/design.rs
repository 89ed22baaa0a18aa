//! The ways to share the allocator.

use std::sync::atomic::AtomicU64;

use ballonet::memory::{CpuCache, CpuCaches, Exclusive, FrameRun, Frames, Magazine};

use super::lock::{Lock, Tally};
use super::memory::{Memory, Shape};

/// How threads share the allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Design {
    /// Behind one lock.
    OneLock,
    /// The same, with a magazine for each CPU in front.
    Magazines,
}

/// The allocator, shared.
pub(crate) struct Shared<'f> {
    frames: Lock<Frames<'f>>,
    caches: Option<CpuCaches<'f, Lock<Magazine>>>,
}

impl Design {
    pub(crate) const ALL: [Self; 2] = [Self::OneLock, Self::Magazines];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OneLock => "one lock",
            Self::Magazines => "magazines",
        }
    }

    /// Runs `action` on the allocator of `memory`, shared in this way. Returns how often locks were taken.
    pub(crate) fn over(self, memory: &mut Memory, cpus: usize, action: impl FnOnce(&Shared<'_>)) -> Tally {
        let mut frames = memory.frames_in(Shape::Free);
        let words: Vec<_> = (0..frames.held_words()).map(|_| AtomicU64::new(0)).collect();
        let cpus: Vec<_> = (0..cpus).map(|_| CpuCache::from(Lock::new(Magazine::default()))).collect();
        let before = frames.counts().free;
        let shared = match self {
            Self::OneLock => Shared { frames: Lock::new(frames), caches: None },
            Self::Magazines => {
                let caches = CpuCaches::new(&cpus, &mut frames, &words).unwrap();
                Shared { frames: Lock::new(frames), caches: Some(caches) }
            }
        };
        action(&shared);
        shared.caches.iter().for_each(|caches| _ = caches.drain(&shared.frames));
        let tally = cpus.iter().map(|cpu| cpu.magazine.tally()).chain([shared.frames.tally()]).sum();
        shared.frames.with(|frames| {
            assert_eq!(frames.counts().free, before, "frames were lost");
            frames.check().unwrap();
        });
        tally
    }
}

impl Shared<'_> {
    /// Allocates on a CPU.
    pub(crate) fn allocate(&self, cpu: usize, frames: u32) -> FrameRun {
        let run = match &self.caches {
            Some(caches) if frames == 1 => caches.allocate(cpu, &self.frames),
            Some(caches) => caches.attempt(&self.frames, |all| all.allocate(frames, frames)),
            None => self.frames.with(|all| all.allocate(frames, frames)),
        };
        run.unwrap()
    }

    /// Frees on a CPU.
    pub(crate) fn free(&self, cpu: usize, run: FrameRun) {
        let freed = match &self.caches {
            Some(caches) => caches.free(cpu, run, &self.frames),
            None => self.frames.with(|all| all.free(run)),
        };
        freed.unwrap();
    }
}
