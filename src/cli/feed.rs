//! What `serve` feeds its pipeline with, in real time.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ingest::Ingest;
use crate::http::About;
use crate::input::Input;
use crate::metrics::{Origin, Source};
use crate::recording::Meta;
use crate::sim;
use crate::source::live::{self, Live};
use crate::source::replay::{Error, Paced, Replay, Wait};
use crate::source::stop::Stop;
use crate::source::sysctl::kernel_info;

/// A source that is ready to begin.
pub enum Feed {
    /// This kernel.
    Live(Box<Live>),
    /// A recording, once or again and again.
    Replay {
        /// It, at its beginning.
        first: Replay,
        /// Where to find it for another time; `None` for the one that is part of the program.
        path: Option<PathBuf>,
        /// Whether to begin again at its end.
        repeat: bool,
        /// How many times faster than it was recorded.
        speed: f64,
    },
    /// A simulated kernel under an endless load.
    Simulate {
        /// With the options it is the whole of the run.
        seed: u64,
        /// The kernel and its load.
        options: Box<sim::Options>,
    },
}

impl Feed {
    /// A recording, or the one that is part of the program.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn replay(path: Option<PathBuf>, repeat: bool, speed: f64) -> Result<Feed, Error> {
        Ok(Feed::Replay { first: open(&path)?, path, repeat, speed })
    }

    /// What ends [`Feed::run`].
    pub fn stop(&self) -> Stop {
        match self {
            Feed::Live(live) => live.stop(),
            Feed::Replay { .. } | Feed::Simulate { .. } => Stop::default(),
        }
    }

    /// What the service says about it.
    pub fn about(&self) -> About {
        let (origin, detail, meta) = match self {
            Feed::Live(_) => {
                let kernel = kernel_info();
                return About {
                    origin: Origin::Live,
                    detail: String::new(),
                    osrelease: kernel.osrelease,
                    osreldate: kernel.osreldate,
                    sources: Source::ALL.to_vec(),
                };
            }
            Feed::Replay { first, path, .. } => {
                let name = path.as_ref().map(|path| path.display().to_string());
                (Origin::Replay, name.unwrap_or("bundled recording".to_owned()), first.meta())
            }
            Feed::Simulate { seed, options } => {
                // An empty label is none at all: series could not be told apart by release.
                let meta = Meta { uname: "FreeBSD simulated".to_owned(), ..Meta::default() };
                (Origin::Simulate, format!("--seed {seed} {options}"), meta)
            }
        };
        About {
            origin,
            detail,
            osrelease: meta.uname.split(' ').nth(1).unwrap_or_default().to_owned(),
            osreldate: meta.osreldate,
            sources: vec![Source::Kqueue, Source::Dtrace],
        }
    }

    /// Feeds `ingest` until there is no more, or until `stop`, which is [`Feed::stop`] of this feed.
    ///
    /// # Errors
    /// This kernel cannot be watched, or cannot be watched any more.
    pub fn run(self, ingest: &mut Ingest, stop: &Stop) -> Result<(), live::Error> {
        match self {
            Feed::Live(live) => {
                live.run(&mut |input: Input<'_>| ingest.push(input))?;
            }
            Feed::Replay { first, path, repeat, speed } => {
                let mut next = Some(first);
                while let Some(replay) = next.take() {
                    let played = replay.play(&mut paced(ingest, speed, stop));
                    if let Err(error) = played {
                        tracing::warn!(%error, "the recording is damaged; what came before is served");
                    }
                    if stop.is_requested() {
                        return Ok(());
                    }
                    ingest.begin_again();
                    next = repeat.then(|| open(&path)).and_then(|again| {
                        again
                            .inspect_err(|error| tracing::error!(%error, "cannot play it again"))
                            .ok()
                    });
                }
                tracing::info!("the recording has come to its end; its figures stay");
            }
            Feed::Simulate { seed, options } => {
                sim::run_endless(seed, &options, &mut paced(ingest, 1.0, stop));
            }
        }
        Ok(())
    }
}

fn open(path: &Option<PathBuf>) -> Result<Replay, Error> {
    match path {
        Some(path) => Replay::open(path),
        None => Replay::bundled(),
    }
}

fn paced<'a>(
    ingest: &'a mut Ingest,
    speed: f64,
    stop: &'a Stop,
) -> Paced<impl FnMut(Input<'_>) -> ControlFlow<()> + 'a, Interruptible<'a>> {
    Paced::new(
        |input: Input<'_>| ingest.push(input),
        speed,
        Interruptible { began: Instant::now(), stop },
    )
}

/// Waits until it is time, or until the service is to end.
struct Interruptible<'a> {
    began: Instant,
    stop: &'a Stop,
}

impl Wait for Interruptible<'_> {
    fn until(&mut self, since_start: Duration) -> ControlFlow<()> {
        let left = since_start.saturating_sub(self.began.elapsed());
        if !left.is_zero() {
            self.stop.wait(0, left);
        }
        if self.stop.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
