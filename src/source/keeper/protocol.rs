//! The protocol between the exporter and its keeper: one request at a time, one answer to each. A request begins with 8
//! bytes, an answer with 12. The keeper treats everything else as the end of the exporter, and ends.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::model::Pid;
use crate::source::dtrace::programs::{ALL, Program};
use crate::source::target::root_pid;

/// Something to be done by root. A program is named by its place in [`ALL`]: no other text can reach dtrace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    Compile(&'static Program),
    /// Run a program for the reader in the exporter; a dtrace that runs still is killed.
    Start(&'static Program),
    Terminate,
    Kill,
    /// Read the pid file with this number.
    ReadPidFile(u16),
    /// Have the next program that is compiled or run watch this consumer as well.
    AddConsumer(Pid),
    CpuTimes,
}

impl Request {
    const LEN: usize = 8;

    fn bytes(self) -> [u8; Request::LEN] {
        let (letter, place, number) = match self {
            Request::Compile(program) => (b'c', program.place(), 0),
            Request::Start(program) => (b's', program.place(), 0),
            Request::Terminate => (b't', 0, 0),
            Request::Kill => (b'k', 0, 0),
            Request::ReadPidFile(number) => (b'p', 0, number.into()),
            Request::AddConsumer(pid) => (b'a', 0, pid.get()),
            Request::CpuTimes => (b'u', 0, 0),
        };
        let [a, b, c, d] = u32::to_le_bytes(number);
        [letter, place, 0, 0, a, b, c, d]
    }

    /// Each request has one spelling.
    fn of(bytes: [u8; Request::LEN]) -> Option<Request> {
        Request::meant_by(bytes).filter(|request| request.bytes() == bytes)
    }

    fn meant_by([letter, place, _, _, a, b, c, d]: [u8; Request::LEN]) -> Option<Request> {
        let program = || ALL.get(usize::from(place));
        Some(match letter {
            b'c' => Request::Compile(program()?),
            b's' => Request::Start(program()?),
            b't' => Request::Terminate,
            b'k' => Request::Kill,
            b'u' => Request::CpuTimes,
            b'p' => Request::ReadPidFile(u16::from_le_bytes([a, b])),
            b'a' => Request::AddConsumer(root_pid(u32::from_le_bytes([a, b, c, d]).into())?),
            _ => return None,
        })
    }

    pub(super) fn send(self, mut to: &UnixStream) -> io::Result<()> {
        to.write_all(&self.bytes())
    }

    /// The next request; `None` if there will be no other. Descriptors that come with it are closed unseen.
    pub(super) fn receive(mut from: &UnixStream) -> Option<Request> {
        let mut bytes = [0; Request::LEN];
        from.read_exact(&mut bytes).ok()?;
        Request::of(bytes)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Done,
    /// dtrace, or a pid file, is not what it should be.
    Refused,
    /// The system would not let the keeper do it.
    Failed,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    /// A pid.
    pub(super) number: i32,
    /// A text about it, or processor times.
    pub(super) text: String,
    /// Three pipes, or none.
    pub(super) descriptors: Vec<OwnedFd>,
}

const LONGEST: usize = 32 << 10;
/// The most descriptors: dtrace's stdout and stderr, and the pipe that reports its end.
const MOST: usize = 3;

impl Reply {
    const LEN: usize = 12;

    pub(super) fn done(number: i32) -> Reply {
        Reply { outcome: Outcome::Done, number, text: String::new(), descriptors: Vec::new() }
    }

    pub(super) fn refused(text: impl ToString) -> Reply {
        Reply { outcome: Outcome::Refused, text: text.to_string(), ..Reply::done(0) }
    }

    pub(super) fn failed(text: impl ToString) -> Reply {
        Reply { outcome: Outcome::Failed, text: text.to_string(), ..Reply::done(0) }
    }

    pub(super) fn send(&self, mut to: &UnixStream) -> io::Result<()> {
        let text = &self.text.as_bytes()[..self.text.len().min(LONGEST)];
        let mut head = [0; Reply::LEN];
        head[0] = self.outcome as u8;
        head[4..8].copy_from_slice(&self.number.to_le_bytes());
        head[8..].copy_from_slice(&(text.len() as u32).to_le_bytes());
        let raw: Vec<RawFd> = self.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights };
        let sent = retried(|| {
            sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&head)], rights, MsgFlags::empty(), None)
        })?;
        to.write_all(&head[sent..])?;
        to.write_all(text)
    }

    pub(super) fn receive(mut from: &UnixStream) -> io::Result<Reply> {
        let mut head = [0; Reply::LEN];
        let (begun, descriptors) = receive_with_rights(from, &mut head)?;
        from.read_exact(&mut head[begun..])?;
        let [outcome, _, _, _, number @ .., a, b, c, d] = head;
        let outcome = [Outcome::Done, Outcome::Refused, Outcome::Failed]
            .into_iter()
            .find(|known| *known as u8 == outcome)
            .ok_or(ErrorKind::InvalidData)?;
        let mut text = vec![0; (u32::from_le_bytes([a, b, c, d]) as usize).min(LONGEST)];
        from.read_exact(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Reply { outcome, number: i32::from_le_bytes(number), text, descriptors })
    }
}

/// Reads at least one byte, and the descriptors that come with it: they come with the first byte of a message. Where
/// there is no room for them, they are lost and the bytes are not: FreeBSD says EMSGSIZE, and the next call reads the
/// bytes (13.2 `uipc_usrreq.c`, `unp_externalize`); Linux cuts the descriptors off.
fn receive_with_rights(from: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let mut bytes = [IoSliceMut::new(bytes)];
    let mut has_room = true;
    let message = retried(|| {
        // The borrow checker cannot see that a call that failed has borrowed nothing.
        let (from, flags) = (from.as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
        let received = recvmsg::<()>(from, &mut bytes, Some(&mut space), flags);
        if let Err(Errno::EMSGSIZE | Errno::EMFILE) = received
            && std::mem::take(&mut has_room)
        {
            // To be tried again, once.
            return Err(Errno::EINTR);
        }
        received.map(|message| {
            let rights = message.cmsgs().into_iter().flatten().filter_map(|part| match part {
                ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            (message.bytes, rights.flatten().collect::<Vec<RawFd>>())
        })
    })?;
    let (count, raw) = message;
    // SAFETY: the kernel made these descriptors for us with this message; nothing else in this process uses them.
    let descriptors = raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    match count {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok((count, descriptors)),
    }
}

fn retried<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Whether the other side has closed `socket`, without waiting, even where something from it is still to be read.
pub(super) fn is_closed(socket: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::empty())];
    // Asked for no event, it reports hang-ups and errors alone.
    if poll(&mut asked, PollTimeout::ZERO).is_ok_and(|found| found > 0) {
        return true;
    }
    // It may have shut down its end for writing.
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match nix::sys::socket::recv(socket.as_raw_fd(), &mut [0], flags) {
        Ok(count) => count == 0,
        Err(errno) => errno != Errno::EAGAIN && errno != Errno::EINTR,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn every_request_arrives_as_it_was_sent() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut requests = vec![Request::ReadPidFile(0), Request::ReadPidFile(u16::MAX)];
        requests.extend([Request::Terminate, Request::Kill, Request::CpuTimes]);
        requests.extend([1, 99_999].map(|pid| Request::AddConsumer(Pid::new(pid).expect("a pid"))));
        requests.extend(ALL.iter().flat_map(|p| [Request::Compile(p), Request::Start(p)]));
        for request in requests {
            request.send(&ours).expect("sent");
            assert_eq!(Request::receive(&theirs), Some(request));
        }
        drop(ours);
        assert_eq!(Request::receive(&theirs), None);
    }

    #[test]
    fn what_is_no_request_is_the_end() {
        for bytes in [
            *b"x\0\0\0\0\0\0\0",
            *b"c\x05\0\0\0\0\0\0",
            // What is not used is zero.
            *b"p\0\0\0\0\0\x01\0",
            *b"s\0\x01\0\0\0\0\0",
            *b"s\0\0\x01\0\0\0\0",
            *b"s\0\0\0\x05\0\0\0",
            *b"c\0\0\0\x01\0\0\0",
            *b"t\x01\0\0\0\0\0\0",
            *b"k\0\0\0\0\0\0\x01",
            *b"u\0\0\0\x01\0\0\0",
            *b"p\x01\0\0\0\0\0\0",
            *b"a\x01\0\0\x01\0\0\0",
            // No process has such a pid.
            *b"a\0\0\0\0\0\0\0",
            *b"a\0\0\0\0\0\0\x01",
        ] {
            assert_eq!(Request::of(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn replies_carry_their_descriptors() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let (other, _) = io::pipe().expect("a pipe");
        let descriptors = vec![reader.into(), other.into()];
        Reply { descriptors, ..Reply::done(812) }.send(&ours).expect("sent");
        Reply::refused("no\n").send(&ours).expect("sent");
        let mut reply = Reply::receive(&theirs).expect("a reply");
        assert_eq!((reply.outcome, reply.number), (Outcome::Done, 812));
        assert_eq!(reply.descriptors.len(), 2);
        writer.write_all(b"hello").expect("written");
        let mut bytes = [0; 5];
        File::from(reply.descriptors.remove(0)).read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"hello");
        let reply = Reply::receive(&theirs).expect("a reply");
        assert_eq!((reply.outcome, reply.text.as_str()), (Outcome::Refused, "no\n"));
        assert!(reply.descriptors.is_empty());
        drop(ours);
        assert!(Reply::receive(&theirs).is_err());
    }

    #[test]
    fn a_closed_socket_is_seen_without_waiting() {
        use std::os::fd::AsFd;
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(!is_closed(theirs.as_fd()));
        // It waits to be read behind what is being done.
        Request::Kill.send(&ours).expect("sent");
        assert!(!is_closed(theirs.as_fd()));
        drop(ours);
        assert!(is_closed(theirs.as_fd()));
    }
}
