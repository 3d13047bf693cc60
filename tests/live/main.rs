//! The live source: it reads a kernel and dtrace(1), both of them stand-ins here, and survives what can go wrong with them.
#![cfg(unix)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod consumers;
mod reliability;
mod source;
#[path = "../common/stand_in.rs"]
mod stand_in;
mod whole_run;
