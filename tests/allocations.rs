//! The pipeline allocates nothing for an event once its tables have grown to their size.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;

use kqproc_exporter::check::Config;
use kqproc_exporter::input::Input;
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::sim::{self, Options, Shape};

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

// SAFETY: everything is handed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.set(COUNTED.get() + 1);
        // SAFETY: the caller keeps the same conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same conditions.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNTED.set(COUNTED.get() + 1);
        // SAFETY: the caller keeps the same conditions.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the pipeline while so many inputs of an endless load go through it, after four times as many to warm up:
/// a queue grows for as long as there are new peaks.
fn allocations(options: &Options, inputs: usize) -> u64 {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let (mut pushed, mut warm) = (0, 0);
    let mut counted = 0;
    sim::run_endless(1, options, &mut |input: Input<'_>| {
        let before = COUNTED.get();
        pipeline.push(input);
        counted += COUNTED.get() - before;
        pushed += 1;
        if pushed == 4 * inputs {
            warm = std::mem::take(&mut counted);
        }
        if pushed < 5 * inputs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(warm > 0, "the allocator does not count");
    let births = pipeline.stats().trees[0].births_reported;
    assert!(births > 1000, "hardly anything happened: {births} births");
    counted
}

#[test]
fn a_warm_pipeline_allocates_nothing() {
    // Few pids: each has been seen before long.
    for shape in [Shape::Mix, Shape::Chain, Shape::Threads, Shape::Pidreuse] {
        let options =
            Options { shape, count: 50, gap_us: 200, pid_max: 2_000, ..Options::default() };
        assert_eq!(allocations(&options, 6_000), 0, "{shape}");
    }
}
