//! Signals that end a command: the first asks it to end cleanly, a second one to end at once. They are SIGTERM and SIGINT, and
//! SIGHUP for a command that belongs to a terminal.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::thread::Builder;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::source::stop::Stop;

/// Signals that ask for the end.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// SIGTERM and SIGINT. Must be called within a runtime.
    pub(super) fn new() -> io::Result<Signals> {
        Signals::of(&[SignalKind::terminate(), SignalKind::interrupt()])
    }

    fn of(kinds: &[SignalKind]) -> io::Result<Signals> {
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>().map(Signals)
    }

    /// Asks `stop` for the end at every one, for ever.
    pub(super) async fn hand_on_to(mut self, stop: Stop) {
        loop {
            self.next().await;
            stop.request();
        }
    }

    /// Resolves at the next one.
    pub(super) async fn next(&mut self) {
        poll_fn(|cx| match self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// From now on SIGHUP ends nothing. daemon(8) tells the pid before this process can do anything, and a reload may come
/// while dtrace still compiles: there is nothing to load again then.
pub(super) fn survive_hangup() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    // The handler stays when there is no receiver any more.
    signal(SignalKind::hangup()).map(drop)
}

/// Hands every such signal on to `stop`, from a thread of its own, for as long as the process lives; SIGHUP too: its terminal
/// is gone.
pub(super) fn hand_on_to(stop: Stop) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _entered = runtime.enter();
        Signals::of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])?
    };
    Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(signals.hand_on_to(stop)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[test]
    fn an_early_hangup_ends_nothing() {
        survive_hangup().expect("a handler");
        raise(Signal::SIGHUP).expect("raised");
    }

    #[test]
    fn a_second_signal_asks_once_more() {
        let stop = Stop::default();
        hand_on_to(stop.clone()).expect("a thread");
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // The test above may raise SIGHUP meanwhile.
            let seen = stop.requests();
            raise(signal).expect("raised");
            stop.wait(seen, Duration::from_secs(60));
            assert!(stop.requests() > seen, "{signal}");
        }
    }
}
