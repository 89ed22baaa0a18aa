//! The CPU itself: its features, registers, its descriptor tables and stacks.

pub(crate) mod cpuid;
pub(crate) mod memory_types;
pub(crate) mod msr;
pub(crate) mod segments;
pub(crate) mod stack;
