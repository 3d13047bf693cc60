//! The queue of messages from the threads of a live source to the one that feeds the pipeline.
//!
//! std's channel would cost an idle exporter more system calls. Here a batch of an idle call is queued without waking that
//! thread, because its marks come right behind it in DTrace's stream. And a thread that wakes another one holds no lock by
//! then, for which both would make further calls.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::Message;
use super::stop::Stop;
use crate::input::Sink;

/// Messages beyond those that carry a buffer: starts and ends of dtrace, fork counts.
const CONTROL_ROOM: usize = 1024;

/// So many messages wake the reading thread even if each is quiet: dtrace(1) does not trace, and no mark of theirs will come
/// soon.
const MOST_QUIET: usize = 4;

/// A queue with room for as many messages as there are `buffers`, and some more.
pub(crate) fn inbox(buffers: usize) -> (MessageSender, Inbox) {
    let queue = InboxQueue { senders: 1, is_read: true, ..InboxQueue::default() };
    let shared = Arc::new(Shared {
        queue: Mutex::new(queue),
        filled: Condvar::new(),
        emptied: Condvar::new(),
        room: buffers + CONTROL_ROOM,
    });
    (MessageSender(Arc::clone(&shared)), Inbox(shared))
}

/// An end that is written to. Clones write to the same queue.
#[derive(Debug)]
pub(crate) struct MessageSender(Arc<Shared>);

/// The end that is read.
#[derive(Debug)]
pub(crate) struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<InboxQueue>,
    /// There is a message, or no sender any more.
    filled: Condvar,
    /// There is room, or nothing is read any more.
    emptied: Condvar,
    room: usize,
}

#[derive(Debug, Default)]
struct InboxQueue {
    messages: VecDeque<Message>,
    senders: usize,
    is_read: bool,
    /// The reading thread sleeps, and has not been woken.
    is_waited_for: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, InboxQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message, and wakes the reading thread if it sleeps and there are at least `enough` by now.
    fn push(&self, mut queue: MutexGuard<'_, InboxQueue>, message: Message, enough: usize) {
        // If nothing is read any more, the message goes, with its buffer.
        if queue.is_read {
            queue.messages.push_back(message);
        }
        let wakes = queue.messages.len() >= enough && std::mem::take(&mut queue.is_waited_for);
        drop(queue);
        if wakes {
            self.filled.notify_one();
        }
    }
}

impl MessageSender {
    /// Sends a message, and waits for room if there is none. If nothing is read any more, it goes.
    pub(crate) fn send(&self, message: Message) {
        let is_full = |queue: &mut InboxQueue| queue.is_read && queue.messages.len() >= self.0.room;
        let queue = self.0.emptied.wait_while(self.0.lock(), is_full);
        self.0.push(queue.unwrap_or_else(PoisonError::into_inner), message, 1);
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// The message: there is no room.
    pub(crate) fn try_send(&self, message: Message) -> Result<(), Message> {
        let queue = self.0.lock();
        if queue.is_read && queue.messages.len() >= self.0.room {
            return Err(message);
        }
        self.0.push(queue, message, 1);
        Ok(())
    }

    /// Sends one of a bounded number of messages, for which there is always room.
    pub(crate) fn post(&self, message: Message) {
        self.0.push(self.0.lock(), message, 1);
    }

    /// The same for a message that may be read late, with the next one.
    pub(crate) fn post_quietly(&self, message: Message) {
        self.0.push(self.0.lock(), message, MOST_QUIET);
    }
}

impl Clone for MessageSender {
    fn clone(&self) -> MessageSender {
        self.0.lock().senders += 1;
        MessageSender(Arc::clone(&self.0))
    }
}

impl Drop for MessageSender {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.filled.notify_one();
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_read = false;
        queue.messages.clear();
        drop(queue);
        self.0.emptied.notify_all();
    }
}

impl Inbox {
    /// Pushes everything that comes into `sink`, until every sender is gone. If `sink` breaks off, it requests `stop`, and
    /// reads on without it: no sender must wait for room in vain.
    pub(crate) fn deliver_to(&self, sink: &mut impl Sink, stop: &Stop) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let mut patience = None;
        loop {
            match self.next(patience) {
                NextMessage::Message(message) if flow.is_continue() => {
                    flow = message.deliver(sink);
                    if flow.is_break() {
                        stop.request();
                    }
                }
                NextMessage::Message(_) | NextMessage::Nothing => {}
                NextMessage::End => return flow,
            }
            patience = sink.idle();
        }
    }

    /// The next message. It is waited for, for `patience` at most if that is given.
    fn next(&self, patience: Option<Duration>) -> NextMessage {
        let mut queue = self.0.lock();
        if queue.messages.is_empty() && queue.senders > 0 {
            queue.is_waited_for = true;
            queue = match patience {
                None => self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.0.filled.wait_timeout(queue, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue.is_waited_for = false;
        }
        let was_full = queue.messages.len() >= self.0.room;
        let next = match queue.messages.pop_front() {
            Some(message) => NextMessage::Message(message),
            None if queue.senders == 0 => NextMessage::End,
            None => NextMessage::Nothing,
        };
        drop(queue);
        if was_full {
            self.0.emptied.notify_all();
        }
        next
    }
}

enum NextMessage {
    Message(Message),
    /// Nothing came in time, or the thread woke for another reason.
    Nothing,
    /// Every sender is gone.
    End,
}

#[cfg(test)]
impl Inbox {
    /// All that is queued, without a wait.
    pub(super) fn queued(&self) -> Vec<Message> {
        self.0.lock().messages.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::model::TreeId;

    fn message(number: u16) -> Message {
        Message::Plain(Input::TreeGone { id: TreeId(number) })
    }

    fn queued(inbox: &Inbox) -> Vec<u16> {
        let number = |message| match message {
            Message::Plain(Input::TreeGone { id }) => id.0,
            other => panic!("{other:?}"),
        };
        inbox.queued().into_iter().map(number).collect()
    }

    /// Whether the reading thread, if it slept now, would be woken by what `send` sends.
    fn wakes(inbox: &Inbox, send: impl FnOnce()) -> bool {
        inbox.0.lock().is_waited_for = true;
        send();
        !std::mem::take(&mut inbox.0.lock().is_waited_for)
    }

    #[test]
    fn a_batch_of_an_idle_call_wakes_nothing_and_is_read_with_the_next_message() {
        let (to, inbox) = inbox(0);
        assert!(!wakes(&inbox, || to.post_quietly(message(1))));
        assert!(wakes(&inbox, || to.send(message(2))));
        assert_eq!(queued(&inbox), [1, 2]);
        assert!(wakes(&inbox, || to.post(message(3))), "a batch with events");
        queued(&inbox);
        // dtrace(1) prints nothing.
        assert!(!wakes(&inbox, || (1..MOST_QUIET as u16).for_each(|n| to.post_quietly(message(n)))));
        assert!(wakes(&inbox, || to.post_quietly(message(4))));
        assert_eq!(queued(&inbox), [1, 2, 3, 4]);
    }

    #[test]
    fn a_sender_waits_for_room_or_gets_its_message_back() {
        let (to, inbox) = inbox(0);
        (0..CONTROL_ROOM as u16).for_each(|n| to.send(message(n)));
        assert!(matches!(to.try_send(message(7)), Err(Message::Plain(_))));
        to.post(message(8));
        let waiting = std::thread::spawn(move || to.send(message(9)));
        let first: Vec<_> = (0..CONTROL_ROOM).map(|_| inbox.next(None)).collect();
        assert!(first.iter().all(|next| matches!(next, NextMessage::Message(_))));
        waiting.join().expect("there is room");
        assert_eq!(queued(&inbox), [8, 9]);
        assert!(matches!(inbox.next(None), NextMessage::End));
    }

    #[test]
    fn nothing_is_waited_for_once_nothing_is_read() {
        let (to, inbox) = inbox(0);
        (0..CONTROL_ROOM as u16).for_each(|n| to.send(message(n)));
        let waiting = std::thread::spawn({
            let to = to.clone();
            move || to.send(message(9))
        });
        drop(inbox);
        waiting.join().expect("it does not wait");
        to.send(message(10));
        assert!(to.try_send(message(11)).is_ok());
    }

    /// Wants to be called again soon, a few times; then nothing is left to send.
    struct Impatient(Option<MessageSender>, u32);

    impl Sink for Impatient {
        fn push(&mut self, _: Input<'_>) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }

        fn idle(&mut self) -> Option<Duration> {
            self.1 += 1;
            if self.1 == 3 {
                self.0 = None;
            }
            Some(Duration::from_millis(1))
        }
    }

    #[test]
    fn a_sink_that_waits_for_nothing_but_time_is_called_again() {
        let (to, inbox) = inbox(0);
        to.send(message(1));
        let mut sink = Impatient(Some(to), 0);
        assert!(inbox.deliver_to(&mut sink, &Stop::default()).is_continue());
        assert_eq!(sink.1, 3, "once for the message, and twice because nothing came");
    }
}
