//! Input files: directories of dtrace's output, and the fuzz targets, which read recordings and any other bytes.

#[path = "../common/mod.rs"]
mod common;
mod directories;
mod fuzz;
