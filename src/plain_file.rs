//! Reads files that a person wrote, if they are plain files of 1 MiB at most: a pipe would be waited for, a device read for ever.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// More than a person writes by hand, and little enough to hold in memory.
const MAX_BYTES: u64 = 1 << 20;

/// Opens a plain file. What is none is left alone.
///
/// # Errors
/// It is none, or the system says why not.
pub fn open(path: &Path) -> io::Result<File> {
    // Looked at before: the mere opening of some devices does something.
    is_plain(&fs::metadata(path)?)?;
    // It may have been replaced: to open a pipe would wait for its writer, and a terminal would become ours.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    is_plain(&file.metadata()?)?;
    Ok(file)
}

/// The whole of a plain file.
///
/// # Errors
/// It is none, or larger than 1 MiB, or the system says why not.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn is_plain(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory"))
    } else if !metadata.is_file() {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is no plain file"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_plain_file_is_left_alone_and_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        mkfifo(&path("pipe"), Mode::S_IRUSR).expect("a pipe");
        std::os::unix::fs::symlink("/dev/zero", path("device")).expect("a link");
        std::os::unix::fs::symlink("most", path("link")).expect("a link");
        fs::write(path("most"), vec![b'#'; MAX_BYTES as usize]).expect("written");
        fs::write(path("more"), vec![b'#'; MAX_BYTES as usize + 1]).expect("written");
        for (name, why) in [
            (".", "it is a directory"),
            ("pipe", "it is no plain file"),
            ("device", "it is no plain file"),
            ("more", "it is larger than 1 MiB"),
        ] {
            assert_eq!(read(&path(name)).expect_err(name).to_string(), why, "{name}");
        }
        assert_eq!(read(&path("link")).expect("good").len() as u64, MAX_BYTES);
        assert_eq!(read(&path("none")).expect_err("missing").kind(), ErrorKind::NotFound);
    }
}
