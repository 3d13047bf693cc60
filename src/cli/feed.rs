//! The sources of `serve`, each played into a pipeline in real time.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::demo;
use super::ingest::Ingest;
use crate::check::Config;
use crate::http::{About, State};
use crate::input::{Input, Sink};
use crate::metrics::{Origin, Source};
use crate::recording::Meta;
use crate::sim;
use crate::source::live::{self, Live, Remote, Stdin};
use crate::source::replay::{Paced, Replay, ReplayError};
use crate::source::stop::Stop;
use crate::source::sysctl::{KernelInfo, kernel_info};

/// A source that is ready to begin.
pub struct Feed {
    kind: FeedKind,
    /// Ends it.
    stop: Stop,
}

enum FeedKind {
    /// Running kernels.
    Live {
        /// This host's, if it is watched.
        local: Option<Box<Live>>,
        /// Other hosts'.
        remotes: Vec<Remote>,
    },
    /// What a dtrace(1) that somebody else runs prints on stdin.
    Stdin(Box<Stdin>),
    /// A recording, once or again and again.
    Replay {
        /// It, at its beginning.
        first: Replay,
        /// Those that it holds.
        sources: Vec<Source>,
        /// Where to find it for another time; `None` for the one that is part of the program.
        path: Option<PathBuf>,
        /// Whether to begin again at its end.
        repeat: bool,
        /// How many times faster than it was recorded.
        speed: f64,
    },
    /// The recordings that are part of the program, all of them over and over.
    Demo {
        /// The kernel and the origin that the service shows.
        about: About,
        /// How many times faster than they were recorded.
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
    /// This host, if it is watched, and others.
    pub fn live(local: Option<Live>, remotes: Vec<Remote>) -> Feed {
        let stop = Stop::default();
        let stops = local.iter().map(Live::stop).chain(remotes.iter().map(Remote::stop));
        for one in stops {
            stop.on_request(move |_| one.request());
        }
        Feed { kind: FeedKind::Live { local: local.map(Box::new), remotes }, stop }
    }

    /// What a dtrace(1) prints on stdin.
    pub(super) fn stdin(stdin: Stdin) -> Feed {
        Feed { stop: stdin.stop(), kind: FeedKind::Stdin(Box::new(stdin)) }
    }

    /// A simulated kernel under an endless load. With the options the seed is the whole of the run.
    pub(super) fn simulate(seed: u64, options: Box<sim::Options>) -> Feed {
        Feed::until_stopped(FeedKind::Simulate { seed, options })
    }

    fn until_stopped(kind: FeedKind) -> Feed {
        Feed { kind, stop: Stop::default() }
    }

    /// A recording, or the one that is part of the program.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn replay(path: Option<PathBuf>, repeat: bool, speed: f64) -> Result<Feed, ReplayError> {
        let sources = sources(open(&path)?);
        let first = open(&path)?;
        Ok(Feed::until_stopped(FeedKind::Replay { first, sources, path, repeat, speed }))
    }

    /// The recordings that are part of the program.
    ///
    /// # Errors
    /// None, as long as the build is sound.
    pub fn demo(speed: f64) -> Result<Feed, ReplayError> {
        Ok(Feed::until_stopped(FeedKind::Demo { about: demo::about()?, speed }))
    }

    /// What ends [`Feed::run`].
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What the service begins with.
    pub fn state(&self) -> State {
        match &self.kind {
            FeedKind::Live { local, remotes } if !remotes.is_empty() => {
                let names = remotes.iter().map(|remote| remote.host().to_owned()).collect();
                State::with_remotes(self.about(), local.is_some(), names)
            }
            _ => State::new(self.about()),
        }
    }

    /// The kernel and the origin that the service shows.
    fn about(&self) -> About {
        let (origin, detail, meta, sources) = match &self.kind {
            FeedKind::Live { local, .. } => {
                let kernel = local.as_ref().map(|_| kernel_info()).unwrap_or_default();
                let is_read = |source: &Source| match source {
                    Source::Kqueue => local.as_ref().is_some_and(|live| live.reads_kqueue()),
                    Source::Dtrace => true,
                    Source::Sysctl => local.is_some(),
                };
                return About {
                    origin: Origin::Live,
                    detail: String::new(),
                    osrelease: kernel.osrelease,
                    osreldate: kernel.osreldate,
                    sources: Source::ALL.iter().copied().filter(is_read).collect(),
                };
            }
            FeedKind::Stdin(_) => {
                return About {
                    origin: Origin::Live,
                    detail: String::new(),
                    // Prometheus takes an empty label for a missing one: the series could not be grouped by release.
                    osrelease: "unknown".to_owned(),
                    osreldate: 0,
                    sources: vec![Source::Dtrace],
                };
            }
            FeedKind::Demo { about, .. } => return about.clone(),
            FeedKind::Replay { first, sources, path, .. } => {
                let name = path.as_ref().map(|path| path.display().to_string());
                let name = name.unwrap_or("bundled recording".to_owned());
                (Origin::Replay, name, first.meta(), sources.clone())
            }
            FeedKind::Simulate { seed, options } => {
                // Prometheus takes an empty label for a missing one: the series could not be grouped by release.
                let meta = Meta { uname: "FreeBSD simulated".to_owned(), ..Meta::default() };
                let sources = vec![Source::Kqueue, Source::Dtrace];
                (Origin::Simulate, format!("--seed {seed} {options}"), meta, sources)
            }
        };
        About {
            origin,
            detail,
            osrelease: meta.osrelease().to_owned(),
            osreldate: meta.osreldate,
            sources,
        }
    }

    /// Has `state` show the processor time of the processes that it takes besides this one, if it takes any.
    pub(crate) fn measure_cpu(&self, state: &State) {
        if let FeedKind::Live { local: Some(live), .. } = &self.kind {
            let meter = live.cpu_meter();
            state.cpu().of_helpers(move || {
                let times = meter.read()?;
                Some([times.keeper, times.dtrace])
            });
        }
    }

    /// Feeds a pipeline that publishes to `state`, and checks so, until there is no more, or until it is stopped.
    ///
    /// # Errors
    /// This kernel cannot be watched, or cannot be watched any more.
    pub fn run(self, state: &State, check: Config) -> Result<(), live::LiveError> {
        let stop = &self.stop;
        let ingest = || Ingest::new(state.clone(), check);
        match self.kind {
            FeedKind::Live { local, remotes } => {
                return run_live(local, remotes, state, check, stop);
            }
            FeedKind::Stdin(stdin) => stdin.run(&mut ingest())?,
            FeedKind::Demo { speed, .. } => demo::run(state, check, speed, stop),
            FeedKind::Replay { first, path, repeat, speed, .. } => {
                let mut ingest = ingest();
                let mut next = Some(first);
                while let Some(replay) = next.take() {
                    let played =
                        replay.play(&mut paced(|input: Input<'_>| ingest.push(input), speed, stop));
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
            FeedKind::Simulate { seed, options } => {
                let mut ingest = ingest();
                let push = |input: Input<'_>| ingest.push(input);
                sim::run_endless(seed, &options, &mut paced(push, 1.0, stop));
            }
        }
        Ok(())
    }
}

/// A recording of consumers alone holds no calls of a reader.
fn sources(replay: Replay) -> Vec<Source> {
    let (mut trees, mut consumers) = (0, 0);
    // Trees come first. One that is damaged there is found out when it is played.
    let _ = replay.play(&mut |input: Input<'_>| {
        match input {
            Input::Tree { .. } => trees += 1,
            Input::Consumer { .. } => consumers += 1,
            Input::Config(_) => {}
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    });
    match consumers {
        1.. if consumers == trees => vec![Source::Dtrace],
        _ => vec![Source::Kqueue, Source::Dtrace],
    }
}

/// Every host on a thread of its own: what becomes of one does not hold up another. If this host cannot be watched any
/// more, all of them end.
fn run_live(
    local: Option<Box<Live>>,
    remotes: Vec<Remote>,
    state: &State,
    check: Config,
    stop: &Stop,
) -> Result<(), live::LiveError> {
    let first = usize::from(local.is_some());
    thread::scope(|scope| {
        for (remote, part) in remotes.into_iter().zip(first..) {
            let check = Config { switch_ns: remote.switch_ns(), ..check };
            let mut ingest = Ingest::part(state.clone(), check, part);
            let state = state.clone();
            let kernel = move |kernel: KernelInfo| {
                if !kernel.osrelease.is_empty() {
                    state.set_kernel(part, kernel.osrelease, kernel.osreldate);
                }
            };
            scope.spawn(move || {
                let host = remote.host().to_owned();
                let ran = remote.run(&mut ingest, kernel);
                if let Err(error) = ran {
                    tracing::error!(host, "this host is not watched any more: {error}");
                }
            });
        }
        let Some(live) = local else { return Ok(()) };
        let check = Config { switch_ns: live.switch_ns(), ..check };
        let mut ingest = Ingest::part(state.clone(), check, 0);
        let ran = live.run(&mut ingest);
        ran.map(drop).inspect_err(|_| stop.request())
    })
}

fn open(path: &Option<PathBuf>) -> Result<Replay, ReplayError> {
    match path {
        Some(path) => Replay::open(path),
        None => Replay::bundled(),
    }
}

/// A sink that gets inputs in their own time, or so many times faster, until `stop`.
pub(super) fn paced<S: Sink>(sink: S, speed: f64, stop: &Stop) -> impl Sink {
    let began = Instant::now();
    Paced::new(sink, speed, move |since_start: Duration| {
        let left = since_start.saturating_sub(began.elapsed());
        if !left.is_zero() {
            stop.wait(0, left);
        }
        if stop.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}
