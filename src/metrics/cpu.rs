//! Processor time of all processes that watching takes: the exporter itself, its keeper, and dtrace(1).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::process::cpu_time;
use crate::model::named_enum;

named_enum! {
    /// A process that watching takes.
    pub enum OwnProcess {
        /// This one.
        Exporter = "exporter",
        /// The one that is root's and runs dtrace(1).
        Keeper = "keeper",
        /// Every dtrace(1) that was run so far.
        Dtrace = "dtrace",
    }
}

/// How often the keeper is asked at most.
const EVERY: Duration = Duration::from_secs(1);
/// The time of a share: the last minute.
const RECENT: Duration = Duration::from_secs(60);

/// What reads the processor times of the keeper and of dtrace(1), in this order; `None` if they cannot be had now.
type ReadHelpers = dyn Fn() -> Option<[Duration; 2]> + Send + Sync;

/// The processor time of each [`OwnProcess`], as it was last read. Nothing is read unless it is asked for.
#[derive(Default)]
pub struct CpuUsage {
    helpers: OnceLock<Box<ReadHelpers>>,
    /// Locked while the processes are asked; when that was last done.
    asked: Mutex<Option<Instant>>,
    /// The newest one last, and as the first one the newest that is as old as [`RECENT`].
    samples: Mutex<VecDeque<CpuSample>>,
}

/// Processor times since the start; `None` for a process that is not there, or was never asked.
type Times = [Option<Duration>; OwnProcess::COUNT];

#[derive(Clone, Copy)]
struct CpuSample {
    at: Instant,
    times: Times,
}

impl CpuUsage {
    /// There are a keeper and a dtrace(1): `read` asks for their times and may block. Only the first call counts.
    pub(crate) fn of_helpers(
        &self,
        read: impl Fn() -> Option<[Duration; 2]> + Send + Sync + 'static,
    ) {
        let _ = self.helpers.set(Box::new(read));
    }

    /// Reads all times, unless that was done within the last second or is being done. May block for as long as the keeper does.
    pub(crate) fn read(&self) {
        let Ok(mut asked) = self.asked.try_lock() else { return };
        if asked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        let helpers = self.helpers.get().and_then(|read| read());
        let [keeper, dtrace] = helpers.map_or([None; 2], |times| times.map(Some));
        let now = Instant::now();
        self.add(now, [cpu_time(), keeper, dtrace]);
        *asked = Some(now);
    }

    /// No time falls: what the kernel says of an ended process is rounded down.
    fn add(&self, at: Instant, times: Times) {
        let mut samples = self.samples();
        let mut sample = CpuSample { at, times };
        if let Some(last) = samples.back() {
            for (time, before) in sample.times.iter_mut().zip(last.times) {
                *time = (*time).max(before);
            }
        }
        samples.push_back(sample);
        while samples.get(1).is_some_and(|next| at.duration_since(next.at) >= RECENT) {
            samples.pop_front();
        }
    }

    /// What each process has used since the start, as far as that is known.
    pub(crate) fn seconds(&self) -> Vec<(OwnProcess, f64)> {
        let newest = self.samples().back().map_or([None; OwnProcess::COUNT], |s| s.times);
        let known = |process: &OwnProcess| Some((*process, newest[process.index()]?.as_secs_f64()));
        OwnProcess::ALL.iter().filter_map(known).collect()
    }

    /// Of one processor, the share that each process has used in the last minute, and the time for which that holds: longer if
    /// nothing was read for longer, shorter soon after the start. `None` before it was read twice.
    pub(crate) fn recent(&self) -> Option<(Duration, Vec<(OwnProcess, f64)>)> {
        let samples = self.samples();
        let (oldest, newest) = (samples.front()?, samples.back()?);
        let time = newest.at.duration_since(oldest.at);
        let share = |process: &OwnProcess| {
            // The keeper may have been busy when the oldest was read.
            let known = |sample: &CpuSample| Some((sample.at, sample.times[process.index()]?));
            let ((from, before), (to, now)) = (samples.iter().find_map(known)?, known(newest)?);
            let time = to.duration_since(from).as_secs_f64();
            (time > 0.0).then(|| (*process, (now - before).as_secs_f64() / time))
        };
        let shares = OwnProcess::ALL.iter().filter_map(share).collect();
        (!time.is_zero()).then_some((time, shares))
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<CpuSample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_share_is_that_of_the_last_minute() {
        let start = Instant::now();
        let usage = CpuUsage::default();
        let at = |s: u64, exporter, dtrace| {
            usage.add(start + ms(s * 1000), [Some(ms(exporter)), None, Some(ms(dtrace))]);
            usage.recent()
        };
        assert_eq!(at(0, 100, 0), None);
        let shares =
            |exporter, dtrace| vec![(OwnProcess::Exporter, exporter), (OwnProcess::Dtrace, dtrace)];
        assert_eq!(at(10, 300, 100), Some((ms(10_000), shares(0.02, 0.01))), "since the start");
        assert_eq!(at(60, 700, 600), Some((ms(60_000), shares(0.01, 0.01))));
        assert_eq!(at(70, 900, 700), Some((ms(60_000), shares(0.01, 0.01))));
        assert_eq!(at(270, 4_900, 600), Some((ms(200_000), shares(0.02, 0.0))), "none falls");
        assert_eq!(usage.seconds(), shares(4.9, 0.7));
    }

    #[test]
    fn a_keeper_that_was_busy_at_first_has_a_share_from_then_on() {
        let start = Instant::now();
        let usage = CpuUsage::default();
        for (s, keeper) in [(0, None), (10, Some(ms(10))), (20, Some(ms(30)))] {
            usage.add(start + ms(s * 1000), [Some(ms(0)), keeper, None]);
        }
        let shares = vec![(OwnProcess::Exporter, 0.0), (OwnProcess::Keeper, 0.002)];
        assert_eq!(usage.recent(), Some((ms(20_000), shares)));
    }

    #[test]
    fn the_keeper_is_asked_once_a_second_at_most() {
        let asked = Arc::new(AtomicUsize::new(0));
        let usage = CpuUsage::default();
        usage.of_helpers({
            let asked = Arc::clone(&asked);
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                Some([ms(1), ms(2000)])
            }
        });
        (0..100).for_each(|_| usage.read());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(usage.seconds()[1..], [(OwnProcess::Keeper, 0.001), (OwnProcess::Dtrace, 2.0)]);
    }

    #[test]
    fn without_a_keeper_there_is_the_exporter_alone() {
        let usage = CpuUsage::default();
        assert_eq!(usage.seconds(), []);
        usage.read();
        assert_eq!(usage.seconds().len(), 1);
    }
}
