//! A pool of buffers, which bounds the memory between the threads that read and the one that checks.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A fixed number of buffers. They are made empty, grow with use, and are used again: in the steady state nothing is
/// allocated.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    free: Mutex<Vec<T>>,
}

impl<T: Default> Pool<T> {
    /// `count` buffers.
    pub(crate) fn new(count: usize) -> Arc<Pool<T>> {
        Arc::new(Pool { free: Mutex::new((0..count).map(|_| T::default()).collect()) })
    }

    /// A buffer as its last user left it, or `None` if all are in use. Never waits for one to come back.
    pub(crate) fn take(self: &Arc<Self>) -> Option<PooledBuf<T>> {
        let buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(PooledBuf { buffer, pool: Arc::clone(self) })
    }
}

/// A buffer of a pool; it goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct PooledBuf<T: Default> {
    buffer: T,
    pool: Arc<Pool<T>>,
}

impl<T: Default> Deref for PooledBuf<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.buffer
    }
}

impl<T: Default> DerefMut for PooledBuf<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.buffer
    }
}

impl<T: Default> Drop for PooledBuf<T> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_room() {
        let pool = Pool::<Vec<u8>>::new(1);
        let mut buffer = pool.take().expect("one is free");
        buffer.extend_from_slice(b"some bytes");
        let room = buffer.capacity();
        assert!(pool.take().is_none());
        drop(buffer);
        assert_eq!(pool.take().expect("it came back").capacity(), room);
    }
}
