//! Basic authentication against bcrypt hashes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::file::PasswordHash;

/// bcrypt looks at no more: a longer password would match its own first 72 bytes.
const MAX_PASSWORD: usize = 72;
/// Unknown passwords that may wait for their turn; each takes tens of milliseconds of one core.
const MAX_WAITING: usize = 16;

/// What became of a request's credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::http) enum AuthOutcome {
    Granted,
    Denied,
    /// Too many unknown passwords are being checked.
    Busy,
}

/// The users and how to know them again.
pub(in crate::http) struct Auth {
    users: BTreeMap<String, PasswordHash>,
    /// Checked for a user that does not exist, so that it takes as long as for one that does.
    stand_in: String,
    /// Of this process only: what is kept to recognise a password cannot be attacked offline.
    key: hmac::Key,
    /// The last password of each user that was right.
    known: Mutex<HashMap<String, hmac::Tag>>,
    waiting: Semaphore,
    working: Semaphore,
}

impl Auth {
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new(users: BTreeMap<String, PasswordHash>) -> Result<Auth, String> {
        let cost = users.values().map(|hash| hash.cost).max().unwrap_or(bcrypt::DEFAULT_COST);
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system has no random numbers")?;
        Ok(Auth {
            users,
            // No password is known that hashes to this.
            stand_in: format!(
                "$2b${cost:02}$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK"
            ),
            key,
            known: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            working: Semaphore::new(1),
        })
    }

    /// Checks the `Authorization` header.
    pub(in crate::http) async fn check(
        self: &Arc<Self>,
        header: Option<&HeaderValue>,
    ) -> AuthOutcome {
        let Some((user, password)) = header.and_then(credentials) else {
            return AuthOutcome::Denied;
        };
        if password.len() > MAX_PASSWORD {
            return AuthOutcome::Denied;
        }
        if self.knows(&user, &password) {
            return AuthOutcome::Granted;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return AuthOutcome::Busy };
        let Ok(_working) = self.working.acquire().await else { return AuthOutcome::Busy };
        // Someone with the same password may have been before us in the queue.
        if self.knows(&user, &password) {
            return AuthOutcome::Granted;
        }
        let auth = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || auth.verify(user, &password)).await;
        if checked.unwrap_or(false) { AuthOutcome::Granted } else { AuthOutcome::Denied }
    }

    fn knows(&self, user: &str, password: &[u8]) -> bool {
        let known = self.known().get(user).copied();
        known.is_some_and(|tag| {
            hmac::verify(&self.key, &message(user, password), tag.as_ref()).is_ok()
        })
    }

    /// The slow check, alike for users that exist and others.
    fn verify(&self, user: String, password: &[u8]) -> bool {
        let hash = self.users.get(&user).map(|hash| hash.text.as_str());
        let matches = bcrypt::verify(password, hash.unwrap_or(&self.stand_in)).unwrap_or(false);
        let right = matches && hash.is_some();
        if right {
            let tag = hmac::sign(&self.key, &message(&user, password));
            self.known().insert(user, tag);
        }
        right
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, hmac::Tag>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// User and password apart, so that no two pairs give the same bytes: a user's name has no colon.
fn message(user: &str, password: &[u8]) -> Vec<u8> {
    [user.as_bytes(), b":", password].concat()
}

fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let mut parts = decoded.splitn(2, |&byte| byte == b':');
    let (user, password) = (parts.next()?, parts.next()?);
    // A name that is not UTF-8 belongs to no user, and costs as much time as any other name.
    Some((String::from_utf8_lossy(user).into_owned(), password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sécret: 1";

    fn auth() -> Arc<Auth> {
        let hash = PasswordHash { text: bcrypt::hash(SECRET, 4).unwrap(), cost: 4 };
        Arc::new(Auth::new(BTreeMap::from([("alice".into(), hash)])).unwrap())
    }

    fn basic(credentials: impl AsRef<[u8]>) -> HeaderValue {
        format!("Basic {}", BASE64_STANDARD.encode(credentials)).parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_granted() {
        let auth = auth();
        for _ in 0..2 {
            let right = basic(format!("alice:{SECRET}"));
            assert_eq!(auth.check(Some(&right)).await, AuthOutcome::Granted);
            for wrong in [
                basic("alice:wrong"),
                basic(format!("bob:{SECRET}")),
                basic(format!("Alice:{SECRET}")),
                basic(format!("alice:{SECRET}\0")),
                basic(format!("alice:{SECRET}{}", "x".repeat(80))),
                basic("alice"),
                basic(b"al\xffice:\xff\xfe"),
                "Basic !!!".parse().unwrap(),
                "Basic".parse().unwrap(),
                "Bearer x".parse().unwrap(),
                HeaderValue::from_bytes(b"Basic \xff\xff").unwrap(),
            ] {
                assert_eq!(auth.check(Some(&wrong)).await, AuthOutcome::Denied, "{wrong:?}");
            }
            assert_eq!(auth.check(None).await, AuthOutcome::Denied);
        }
    }

    #[tokio::test]
    async fn a_known_password_needs_no_turn() {
        let auth = auth();
        let right = basic(format!("alice:{SECRET}"));
        assert_eq!(auth.check(Some(&right)).await, AuthOutcome::Granted);
        let _working = auth.working.acquire().await.unwrap();
        let _waiting = auth.waiting.acquire_many(MAX_WAITING as u32).await.unwrap();
        assert_eq!(auth.check(Some(&right)).await, AuthOutcome::Granted);
        assert_eq!(auth.check(Some(&basic("alice:guess"))).await, AuthOutcome::Busy);
    }

    #[test]
    fn the_stand_in_costs_as_much_as_the_dearest_user() {
        let auth = auth();
        let parts: bcrypt::HashParts = auth.stand_in.parse().unwrap();
        assert_eq!(parts.get_cost(), 4);
        assert!(!auth.verify("bob".into(), b"x"));
    }
}
