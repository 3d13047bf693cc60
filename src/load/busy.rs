//! Busy processes, by whose speed the cost of watching is measured: each makes the same call over and over.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::{LoadError, Plan, Shape};
use crate::model::named_enum;

named_enum! {
    /// What a busy process does.
    pub enum Busy {
        /// It forks children that exit at once.
        Forks = "forks",
        /// It asks the kernel for an event that is there.
        Calls = "calls",
    }
}

/// So many calls are made between two looks at the clock.
const BATCH: u64 = 200;

impl Busy {
    /// How often this process can do it in a second of its own and its children's processor time, if it does nothing else for
    /// `time`. By processor time, since other processes of the host then matter little, and since a probe is paid for by
    /// the process that meets it.
    ///
    /// # Errors
    /// [`LoadError`]: a call failed.
    pub(crate) fn per_second(self, time: Duration) -> Result<f64, LoadError> {
        let begun = processor_time()?;
        let times = match self {
            Busy::Forks => forks(time)?,
            Busy::Calls => calls(time).map_err(LoadError::Call)?,
        };
        Ok(times as f64 / (processor_time()? - begun))
    }
}

/// Of this process and its reaped children, user's and system's, in seconds.
fn processor_time() -> Result<f64, LoadError> {
    let mut microseconds = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who).map_err(LoadError::Call)?;
        for time in [usage.user_time(), usage.system_time()] {
            microseconds += time.num_microseconds();
        }
    }
    Ok(microseconds as f64 / 1e6)
}

fn forks(time: Duration) -> Result<u64, LoadError> {
    let plan =
        Plan { shape: Shape::Exit, count: u64::MAX, rate: 0, depth: 0, threads: 1, max: time };
    super::run(&plan).map(|tally| tally.rounds())
}

/// Makes a call again and again: how often, until the time was over.
fn repeat(time: Duration, mut call: impl FnMut() -> nix::Result<()>) -> nix::Result<u64> {
    let begun = Instant::now();
    let mut times = 0;
    while begun.elapsed() < time {
        for _ in 0..BATCH {
            call()?;
        }
        times += BATCH;
    }
    Ok(times)
}

/// kevent(2) calls that trigger an event and get it, so that the kernel copies one out each time.
#[cfg(target_os = "freebsd")]
fn calls(time: Duration) -> nix::Result<u64> {
    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

    let event = |flags, notes| KEvent::new(1, EventFilter::EVFILT_USER, flags, notes, 0, 0);
    let queue = Kqueue::new()?;
    let added = event(EvFlags::EV_ADD | EvFlags::EV_CLEAR, FilterFlag::empty());
    queue.kevent(&[added], &mut [], None)?;
    let trigger = [event(EvFlags::empty(), FilterFlag::NOTE_TRIGGER)];
    let mut events = [added; 8];
    repeat(time, || queue.kevent(&trigger, &mut events, None).map(drop))
}

/// Elsewhere there is no kevent(2): poll(2) calls of a pipe that can be read.
#[cfg(not(target_os = "freebsd"))]
fn calls(time: Duration) -> nix::Result<u64> {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let (reader, writer) = nix::unistd::pipe()?;
    nix::unistd::write(&writer, b"x")?;
    let mut asked = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    repeat(time, || poll(&mut asked, PollTimeout::NONE).map(drop))
}

/// The call of [`Busy::Calls`] on this system.
pub(crate) const CALL: &str = if cfg!(target_os = "freebsd") { "kevent(2)" } else { "poll(2)" };
