//! The part of the web configuration that keeps clients out, which a reload may not weaken.

use std::collections::BTreeSet;

use super::file::{ClientAuth, RateLimit, TlsVersion, WebConfigFile};

/// The part of a web configuration that decides who is let in, and how often. A file that was cut short, emptied or
/// edited by mistake can lack any part of it, so a reload takes up only a guard that lacks nothing of the one in force.
#[derive(Default)]
pub(super) struct Guard {
    /// The lowest version of TLS; `None` for plain HTTP.
    tls: Option<TlsVersion>,
    client_auth: ClientAuth,
    allowed_sans: BTreeSet<String>,
    users: BTreeSet<String>,
    rate: Option<RateLimit>,
}

impl Guard {
    pub(super) fn of(file: &WebConfigFile) -> Guard {
        let tls = file.tls_server_config.as_ref();
        let users = file.basic_auth_users.iter().flat_map(|users| users.keys());
        Guard {
            tls: tls.map(|tls| tls.min_version.unwrap_or(TlsVersion::Tls12)),
            client_auth: tls.map_or(ClientAuth::None, |tls| tls.client_auth_type),
            allowed_sans: tls
                .into_iter()
                .flat_map(|tls| &tls.client_allowed_sans)
                .map(|san| san.0.clone())
                .collect(),
            users: users.cloned().collect(),
            rate: file.rate_limit,
        }
    }

    /// What `new` lacks of this guard, for an operator to read; nothing if it is as strong or stronger.
    pub(super) fn lost_in(&self, new: &Guard) -> Vec<String> {
        let mut lost = Vec::new();
        match (self.tls, new.tls) {
            (Some(_), None) => lost.push("TLS is gone".to_owned()),
            (old, new) if new < old => lost.push("min_version is lower".to_owned()),
            _ => {}
        }
        if new.client_auth < self.client_auth {
            lost.push("client_auth_type is weaker".to_owned());
        }
        let gone = |what: &str, name: &String| format!("{what} {name:?} is gone");
        let sans = self.allowed_sans.difference(&new.allowed_sans);
        lost.extend(sans.map(|name| gone("the allowed name", name)));
        let users = self.users.difference(&new.users);
        lost.extend(users.map(|name| gone("user", name)));
        if let Some(old) = self.rate
            && new.rate.is_none_or(|new| new.interval < old.interval || new.burst > old.burst)
        {
            lost.push("rate_limit is gone or allows more".to_owned());
        }
        lost
    }
}
