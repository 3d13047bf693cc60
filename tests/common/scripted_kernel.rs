//! A kernel without events of its own.

use std::io;
use std::time::Duration;

use kqproc_exporter::input::Attach;
use kqproc_exporter::model::Kevent;
use kqproc_exporter::source::kqueue::{KqueueApi, ProcessRow};

/// A function of the test runs at each call.
pub struct Scripted<F>(pub F);

impl<F: FnMut(&[Attach], &mut Vec<Kevent>) -> io::Result<()> + Send> KqueueApi for Scripted<F> {
    fn kevent(
        &mut self,
        changes: &[Attach],
        _: u32,
        _: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        (self.0)(changes, events)
    }

    fn processes(&mut self, _: &mut Vec<ProcessRow>) -> io::Result<()> {
        Ok(())
    }
}

/// Nothing happens.
pub fn quiet(_: &[Attach], _: &mut Vec<Kevent>) -> io::Result<()> {
    Ok(())
}
