//! The first bytes that come out of a pipe, kept for a message about the process that wrote them.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many bytes are kept.
const ENOUGH: usize = 16 << 10;
/// How long the end of the pipe is waited for when the process has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// How often it is looked for in that time.
const POLL: Duration = Duration::from_millis(10);

/// The first bytes that come out of a pipe. It is read to its end, for a full one would stop the process.
pub(super) struct Beginning {
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Beginning {
    pub(super) fn of(mut pipe: impl Read + Send + 'static) -> Beginning {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = ENOUGH - kept.len();
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        });
        Beginning { bytes, reading }
    }

    /// What has come, once the process has ended. Its pipe need not have: a child that it left behind may hold it, as
    /// ssh(1) leaves one with ControlPersist.
    pub(super) fn text(self) -> String {
        let deadline = Instant::now() + LEFT_BEHIND;
        while !self.reading.is_finished() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// As that of ssh(1) with ControlPersist: it holds the pipe.
    #[test]
    fn a_process_that_is_left_behind_holds_up_nobody() {
        let (pipe, mut held) = std::io::pipe().expect("a pipe");
        let beginning = Beginning::of(pipe);
        held.write_all(b"some text").expect("written");
        assert_eq!(beginning.text(), "some text");
        drop(held);
    }
}
