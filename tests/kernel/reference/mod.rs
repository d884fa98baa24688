//! A reference for the CPU probe that is not the probe: everything that the scheduler does is recorded, and the terms of
//! docs/signals.md are computed from the whole trace by brute force.

mod compare;
mod load;
mod measured;
mod random;
mod recorder;
mod scene;
mod span;
mod terms;
