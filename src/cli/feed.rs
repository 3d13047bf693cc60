//! A [`Feed`]: a source that `serve` or `simulate --serve` is about to run, with the part of the service that shows it. This
//! file makes one for each kind of source, and runs it into a pipeline in real time.

use std::iter;
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
use crate::sim;
use crate::source::live::{Live, LiveError, Remote, Stdin};
use crate::source::replay::{Paced, Replay, ReplayError};
use crate::source::stop::Stop;
use crate::source::sysctl::{KernelInfo, kernel_info};

/// A source that is ready to begin, and what the service shows of it.
pub struct Feed {
    state: State,
    /// Ends it.
    stop: Stop,
    run: Box<RunFeed>,
}

/// Feeds pipelines that publish to the state, and check so, until there is no more, or until it is stopped.
type RunFeed = dyn FnOnce(&State, Config, &Stop) -> Result<(), LiveError> + Send;

impl Feed {
    fn new(
        state: State,
        stop: Stop,
        run: impl FnOnce(&State, Config, &Stop) -> Result<(), LiveError> + Send + 'static,
    ) -> Feed {
        Feed { state, stop, run: Box::new(run) }
    }

    /// Running kernels: this host's, if it is watched, and those of others.
    pub fn live(local: Option<Live>, remotes: Vec<Remote>) -> Feed {
        let stop = Stop::default();
        let stops = local.iter().map(Live::stop).chain(remotes.iter().map(Remote::stop));
        for one in stops {
            stop.on_request(move |_| one.request());
        }
        Feed::new(live_state(local.as_ref(), &remotes), stop, |state, check, stop| {
            run_live(local, remotes, state, check, stop)
        })
    }

    /// What a dtrace(1) prints on stdin that another program has started.
    pub(super) fn stdin(stdin: Stdin) -> Feed {
        let state = State::new(About {
            origin: Origin::Live,
            detail: String::new(),
            // Prometheus takes an empty label for a missing one, and could not group the series by it.
            osrelease: "unknown".to_owned(),
            osreldate: 0,
            sources: vec![Source::Dtrace],
        });
        Feed::new(state, stdin.stop(), |state, check, _| {
            stdin.run(&mut Ingest::new(state.clone(), check))
        })
    }

    /// A simulated kernel under an endless load. With the options the seed is the whole of the run.
    pub(super) fn simulate(seed: u64, options: Box<sim::Options>) -> Feed {
        let state = State::new(About {
            origin: Origin::Simulate,
            detail: format!("--seed {seed} {options}"),
            osrelease: "simulated".to_owned(),
            osreldate: 0,
            sources: vec![Source::Kqueue, Source::Dtrace],
        });
        Feed::new(state, Stop::default(), move |state, check, stop| {
            let mut ingest = Ingest::new(state.clone(), check);
            let push = |input: Input<'_>| ingest.push(input);
            sim::run_endless(seed, &options, &mut paced(push, 1.0, stop));
            Ok(())
        })
    }

    /// A recording, or the one that is part of the program. With `repeat` it begins again at its end.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn replay(path: Option<PathBuf>, repeat: bool, speed: f64) -> Result<Feed, ReplayError> {
        let sources = sources(open(&path)?);
        let first = open(&path)?;
        let (meta, name) = (first.meta(), path.as_ref().map(|path| path.display().to_string()));
        let state = State::new(About {
            origin: Origin::Replay,
            detail: name.unwrap_or("bundled recording".to_owned()),
            osrelease: meta.osrelease().to_owned(),
            osreldate: meta.osreldate,
            sources,
        });
        Ok(Feed::new(state, Stop::default(), move |state, check, stop| {
            let again = repeat.then(|| iter::repeat_with(|| open(&path)));
            let rounds = iter::once(Ok(first)).chain(again.into_iter().flatten());
            play(rounds, Ingest::new(state.clone(), check), speed, stop);
            Ok(())
        }))
    }

    /// The recordings that are part of the program, all of them over and over.
    ///
    /// # Errors
    /// None, as long as the build is sound.
    pub(super) fn demo(speed: f64) -> Result<Feed, ReplayError> {
        let state = State::new(demo::about()?);
        Ok(Feed::new(state, Stop::default(), move |state, check, stop| {
            demo::run(state, check, speed, stop);
            Ok(())
        }))
    }

    /// What ends [`Feed::run`].
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What the service begins with.
    pub(super) fn state(&self) -> State {
        self.state.clone()
    }

    /// Plays it, checked so, until there is no more, or until it is stopped.
    ///
    /// # Errors
    /// This kernel cannot be watched, or cannot be watched any more.
    pub(super) fn run(self, check: Config) -> Result<(), LiveError> {
        (self.run)(&self.state, check, &self.stop)
    }
}

/// What the service begins with if it watches running kernels.
fn live_state(local: Option<&Live>, remotes: &[Remote]) -> State {
    let kernel = local.map(|_| kernel_info()).unwrap_or_default();
    let is_read = |source: &Source| match source {
        Source::Kqueue => local.is_some_and(Live::reads_kqueue),
        Source::Dtrace => true,
        Source::Sysctl => local.is_some(),
    };
    let about = About {
        origin: Origin::Live,
        detail: String::new(),
        osrelease: kernel.osrelease,
        osreldate: kernel.osreldate,
        sources: Source::ALL.iter().copied().filter(is_read).collect(),
    };
    let names = remotes.iter().map(|remote| remote.host().to_owned()).collect();
    let state = State::with_remotes(about, local.is_some(), names);
    if let Some(live) = local {
        let meter = live.cpu_meter();
        state.cpu().of_helpers(move || meter.read().map(|times| [times.keeper, times.dtrace]));
    }
    state
}

/// Plays one recording after the other, until there is none or until `stop`.
fn play(
    recordings: impl Iterator<Item = Result<Replay, ReplayError>>,
    mut ingest: Ingest,
    speed: f64,
    stop: &Stop,
) {
    for recording in recordings {
        let replay = match recording {
            Ok(replay) => replay,
            Err(error) => {
                tracing::error!(%error, "cannot play it again");
                break;
            }
        };
        let played = replay.play(&mut paced(|input: Input<'_>| ingest.push(input), speed, stop));
        if let Err(error) = played {
            tracing::warn!(%error, "the recording is damaged; what came before is served");
        }
        if stop.is_requested() {
            return;
        }
        ingest.begin_again();
    }
    tracing::info!("the recording has come to its end; its figures stay");
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
    local: Option<Live>,
    remotes: Vec<Remote>,
    state: &State,
    check: Config,
    stop: &Stop,
) -> Result<(), LiveError> {
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
