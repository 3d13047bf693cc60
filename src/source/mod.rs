//! Who feeds the pipeline: a live kernel, a recording, a simulated kernel. Platform code is here and in `load` only.

#[cfg(target_os = "freebsd")]
pub(crate) mod kinfo;
pub mod raw;
pub mod replay;

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
