//! What may come into the place of a file that somebody wrote.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

type Spoil = (fn(&Path), &'static str);

/// Puts something else in the file's place; what must be said of it.
pub const SPOILS: [Spoil; 4] = [
    (
        |file| {
            fs::remove_file(file).expect("removed");
            fs::create_dir(file).expect("a directory");
        },
        "it is a directory",
    ),
    (
        |file| {
            fs::remove_dir(file).expect("removed");
            mkfifo(file, Mode::S_IRWXU).expect("a pipe");
        },
        "it is no plain file",
    ),
    (
        |file| {
            fs::remove_file(file).expect("removed");
            symlink("/dev/zero", file).expect("a link");
        },
        "it is no plain file",
    ),
    (
        |file| {
            fs::remove_file(file).expect("removed");
            fs::write(file, vec![b'#'; 2 << 20]).expect("written");
        },
        "it is larger than 1 MiB",
    ),
];
