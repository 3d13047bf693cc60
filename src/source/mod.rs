//! Who feeds the pipeline: a live kernel, a recording, a simulated kernel. Platform code is here and in `load` only.

pub mod barrier;
mod clock;
pub mod dtrace;
pub mod kqueue;
pub mod live;
mod message;
mod pool;
pub mod raw;
pub mod replay;
pub mod stop;
pub mod sysctl;
pub mod target;

use std::ops::ControlFlow;

use crate::input::Input;

/// Where a source puts its inputs. `Break` tells it to stop.
pub trait Sink {
    /// Takes the next input.
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()>;
}

impl<F: FnMut(Input<'_>) -> ControlFlow<()>> Sink for F {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        self(input)
    }
}
