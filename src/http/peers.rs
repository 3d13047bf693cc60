//! The table of open connections. At the limit the least useful one is closed for a new one, so that idle connections
//! cannot keep a scrape out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One connection, as the others see it.
#[derive(Default)]
pub(super) struct Peer {
    /// Even: nothing of the next request has come. Odd: a part of its header has. See [`Peer::in_header`].
    phase: AtomicU64,
    /// A request is being answered.
    busy: AtomicBool,
    /// It has been answered at least once.
    served: AtomicBool,
    /// When its last request or connection came, as a count of those of all connections.
    arrived_at: AtomicU64,
    gives_way: Notify,
}

impl Peer {
    pub(super) fn phase(&self) -> u64 {
        self.phase.load(Ordering::Relaxed)
    }

    pub(super) fn in_header(phase: u64) -> bool {
        phase % 2 == 1
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        let phase = self.phase();
        if !Peer::in_header(phase) {
            self.phase.store(phase + 1, Ordering::Relaxed);
        }
    }

    /// Resolves when this connection is the one that has to give way.
    pub(super) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }

    /// Of more use than others is who is being answered; among the rest, who was answered before; among those, who came last.
    fn usefulness(&self) -> (bool, bool, u64) {
        let load = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        (load(&self.busy), load(&self.served), self.arrived_at.load(Ordering::Relaxed))
    }
}

/// All connections, at most a fixed number.
pub(super) struct Peers {
    places: Arc<Semaphore>,
    table: Mutex<HashMap<u64, Arc<Peer>>>,
    arrivals: AtomicU64,
}

impl Peers {
    pub(super) fn new(most: usize) -> Peers {
        Peers {
            places: Arc::new(Semaphore::new(most)),
            table: Mutex::default(),
            arrivals: AtomicU64::new(0),
        }
    }

    /// A place for a new connection; waits for one if all the others are being answered.
    pub(super) async fn admit(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.make_way();
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let peer = Arc::new(Peer::default());
        let id = self.arrive(&peer);
        self.table().insert(id, Arc::clone(&peer));
        Some(ConnectionSlot { id, peer, peers: Arc::clone(self), _place: place })
    }

    /// A request's header is complete.
    pub(super) fn begin(&self, peer: &Peer) {
        let phase = peer.phase();
        peer.phase.store(phase + 2 - phase % 2, Ordering::Relaxed);
        peer.busy.store(true, Ordering::Relaxed);
        self.arrive(peer);
    }

    /// Its response is known.
    pub(super) fn end(&self, peer: &Peer) {
        peer.busy.store(false, Ordering::Relaxed);
        peer.served.store(true, Ordering::Relaxed);
    }

    fn arrive(&self, peer: &Peer) -> u64 {
        let now = self.arrivals.fetch_add(1, Ordering::Relaxed);
        peer.arrived_at.store(now, Ordering::Relaxed);
        now
    }

    fn make_way(&self) {
        let table = self.table();
        let least = table.values().min_by_key(|peer| peer.usefulness());
        if let Some(peer) = least.filter(|peer| !peer.busy.load(Ordering::Relaxed)) {
            // It is closed soon, so it is no candidate for the next one.
            peer.busy.store(true, Ordering::Relaxed);
            peer.gives_way.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the limited places for connections; dropping it gives the place back.
pub(super) struct ConnectionSlot {
    id: u64,
    pub(super) peer: Arc<Peer>,
    peers: Arc<Peers>,
    _place: OwnedSemaphorePermit,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.peers.table().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_that_never_asked_gives_way_first() {
        let peers = Arc::new(Peers::new(3));
        let scraper = peers.admit().await.unwrap();
        peers.begin(&scraper.peer);
        peers.end(&scraper.peer);
        let answering = peers.admit().await.unwrap();
        peers.begin(&answering.peer);
        let silent = peers.admit().await.unwrap();

        let (newcomer, ()) = tokio::join!(peers.admit(), async {
            silent.peer.gives_way().await;
            drop(silent);
        });
        let newcomer = newcomer.unwrap();
        peers.begin(&newcomer.peer);

        let (another, ()) = tokio::join!(peers.admit(), async {
            scraper.peer.gives_way().await;
            drop(scraper);
        });
        assert!(another.is_some());
    }
}
