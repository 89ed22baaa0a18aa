//! balloon.
