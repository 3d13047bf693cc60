//! What may stand in the place of a configuration file, a certificate or a key, and must be refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Replaces the file at a path.
type Replace = fn(&Path);

/// Replaces the file; then the reason that the error must give. To be applied in this order, which ends with a plain file
/// again.
pub const UNUSABLE_FILES: [(Replace, &str); 4] = [
    (directory, "it is a directory"),
    (pipe, "it is no plain file"),
    (device, "it is no plain file"),
    (large_file, "it is larger than 1 MiB"),
];

fn directory(path: &Path) {
    fs::remove_file(path).expect("removed");
    fs::create_dir(path).expect("a directory");
}

fn pipe(path: &Path) {
    fs::remove_dir(path).expect("removed");
    mkfifo(path, Mode::S_IRWXU).expect("a pipe");
}

fn device(path: &Path) {
    fs::remove_file(path).expect("removed");
    symlink("/dev/zero", path).expect("a link");
}

fn large_file(path: &Path) {
    fs::remove_file(path).expect("removed");
    fs::write(path, vec![b'#'; 2 << 20]).expect("written");
}
