//! `report`: a recording as one page, for a person or a program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::output;
use super::playing::{self, Played};
use crate::check::Config;
use crate::pipeline::Pipeline;
use crate::report::kernel::KernelVersion;
use crate::report::page::chronicle::Chronicle;
use crate::report::page::{ReportPage, RunOrigin};
use crate::report::stress::Run;
use crate::source::replay::ReplayError;

/// What to report on, and how.
#[derive(clap::Args, Debug)]
pub(crate) struct ReportArgs {
    /// A recording or its parts in their order, or a folder with dtrace.txt and pid.txt or kevents.jsonl
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Write the page there instead of to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write; without it, what the ending of --output says, else html
    #[arg(long, value_enum)]
    format: Option<ReportFormat>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum ReportFormat {
    /// one file with plots, for a browser or a printer
    Html,
    /// one object for a program
    Json,
    /// tables for a bug report
    Markdown,
}

impl ReportFormat {
    /// What a file of this name should be.
    fn of(path: &Path) -> ReportFormat {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => ReportFormat::Json,
            Some("md") => ReportFormat::Markdown,
            _ => ReportFormat::Html,
        }
    }
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let (page, played) = page(&args.paths)?;
    let format = args
        .format
        .unwrap_or_else(|| args.output.as_deref().map_or(ReportFormat::Html, ReportFormat::of));
    let text = match format {
        ReportFormat::Html => page.html(),
        ReportFormat::Json => output::json(&page)?,
        ReportFormat::Markdown => page.markdown(),
    };
    match &args.output {
        Some(path) => output::write(path, &text)?,
        None => output::print(&text)?,
    }
    played.context("the report is on the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}

fn page(paths: &[PathBuf]) -> Result<(ReportPage, Result<(), ReplayError>), ReplayError> {
    let mut pipeline = Pipeline::new(Config::default(), Chronicle::default());
    let Played { meta, result } = playing::parts(paths, &mut pipeline)?;
    let run = Run { seconds: pipeline.stats().seconds(), ..Run::default() };
    let first = paths.first().and_then(|path| path.file_name()).unwrap_or_default();
    let origin = RunOrigin {
        source: playing::name(&first.to_string_lossy(), paths.len()),
        note: meta.note,
        start_real_ns: meta.start_real_ns,
        program: meta.program,
    };
    let kernel = KernelVersion { uname: meta.uname, osreldate: meta.osreldate };
    let page = ReportPage::of(pipeline.stats(), pipeline.observer(), kernel, run, origin);
    Ok((page, result))
}
