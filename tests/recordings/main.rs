//! What is read from files: recordings, directories of dtrace's output, and any bytes at all (the fuzz targets).

mod directories;
mod fuzz;
