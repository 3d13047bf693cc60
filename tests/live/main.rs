//! The live source and the commands that use it, with stand-ins for the kernel and for dtrace(1) that have every fault.

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod consumers;
mod cost;
mod reliability;
mod remote;
mod remote_commands;
mod source;
#[path = "../common/stand_in.rs"]
mod stand_in;
mod whole_run;
