//! Input files: directories of dtrace's output, and the fuzz targets, which read recordings and any other bytes.

mod directories;
mod fuzz;
