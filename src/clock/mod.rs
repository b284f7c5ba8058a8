//! Clocks: one that stops while the process is stopped, one of CPU time, and a thread that acts at
//! intervals.

mod cpu;
mod running;
mod ticker;

pub(crate) use cpu::CpuLaps;
pub(crate) use running::RunningClock;
pub(crate) use ticker::Ticker;
