//! Simulated kernels, recorded so that the real exporter can play them.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use kqproc_exporter::input::Input;
use kqproc_exporter::recording::{Meta, Writer};
use kqproc_exporter::sim::{self, Options};

/// Records a run of the kernel that `options` describe, with what `before` puts in front of each input.
pub(crate) fn record<'a>(
    options: &Options,
    out: &Path,
    before: impl Fn(&Input<'_>) -> Option<Input<'a>>,
) {
    let meta = Meta { uname: "FreeBSD simulated amd64".into(), ..Meta::default() };
    let mut writer = Writer::new(File::create(out).unwrap(), &meta).unwrap();
    sim::run(1, options, &mut |input: Input<'_>| {
        if let Some(first) = before(&input) {
            writer.append(&first).unwrap();
        }
        writer.append(&input).unwrap();
        ControlFlow::Continue(())
    });
    writer.finish().unwrap();
}
