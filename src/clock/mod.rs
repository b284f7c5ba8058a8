//! Clocks: one that stops while the process is stopped, and a thread that acts at intervals.

mod running;
mod ticker;

pub(crate) use running::RunningClock;
pub(crate) use ticker::Ticker;
